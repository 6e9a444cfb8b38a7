package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
	"twinegress/sinks/deadletter"
)

// The start waits for brokers that don't answer, says so at growing intervals, and
// ends at once with a stop, or with an error that somebody has to correct.
func TestStartWaitsForKafka(t *testing.T) {
	for name, tt := range map[string]struct {
		then error // what opening ends with after an hour; nil: it is stopped
		says string
	}{
		"a stop":                  {nil, ""},
		"no right":                {fmt.Errorf("create it: %w", kerr.TopicAuthorizationFailed), "TOPIC_AUTHORIZATION_FAILED"},
		"a refused login":         {kerr.SaslAuthenticationFailed, "SASL_AUTHENTICATION_FAILED"},
		"brokers that come later": {kerr.InvalidReplicationFactor, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.InfoLevel)
				p := bare()
				begun := time.Now()
				p.options.Log = zap.New(core)
				p.options.OpenLetters = func(context.Context) (*deadletter.Topic, error) {
					if tt.then != nil && time.Since(begun) >= time.Hour {
						return nil, tt.then
					}
					return nil, errors.New("no broker\x1b")
				}
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				done := make(chan error, 1)
				go func() { done <- p.Run(ctx) }()
				time.Sleep(time.Minute + time.Second)
				if st := p.Status(); st.Ready || !slices.Equal(st.NotReady, []string{`waiting for Kafka for 1m1s: no broker\u001b`}) ||
					st.Ingest.Lag != nil || st.Ingest.Member || st.Ingest.HeardAt != nil || st.Endpoints != nil {
					t.Errorf("the status is %+v", st)
				}
				time.Sleep(time.Hour - time.Minute)
				stop()
				err := <-done
				if tt.says == "" && err != nil || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
					t.Errorf("it ends with %v", err)
				}
				// After 0, 10, 30, 70, 150, 310, 630, 1230, … seconds.
				if n := logs.FilterMessageSnippet("waiting for Kafka").Len(); n != 11 {
					t.Errorf("it was said %d times in an hour", n)
				}
			})
		})
	}
}

// Once Kafka is there the start doesn't say any more that it waits for it.
func TestStartLoadsTheEndpoints(t *testing.T) {
	st := store{load: make(chan struct{})}
	r := run(t, 20*time.Second, st, nil)
	eventually.Holds(t, "it loads the endpoints", func() bool {
		return slices.ContainsFunc(r.NotReady(), func(s string) bool { return strings.HasPrefix(s, "loading the endpoints for ") })
	})
	close(st.load)
	eventually.Holds(t, "it is ready", func() bool { return len(r.NotReady()) == 0 })
	r.stopped()
}

// Without an endpoint nothing is read, and with the last one gone nothing more: what
// comes then is for the next one, and nothing is committed before that has it.
func TestWaitForEndpoints(t *testing.T) {
	const sensor = `{"eventType":"SensorChange"}`
	st := store{changes: make(chan []endpoints.Endpoint)}
	r := run(t, 20*time.Second, st, nil, sensor, sensor)
	eventually.Holds(t, "it waits", func() bool { return r.Status().Ready && r.Status().Ingest.CaughtUp() == false && r.Ingest().Lag != nil })
	if in := r.Ingest(); !in.Waits || !in.Member || *in.Lag != 2 || in.Records != 0 {
		t.Errorf("without an endpoint: %+v", in)
	}
	delivered := func(id string, n uint64) func() bool {
		return func() bool {
			e, ok := r.EndpointStatus(id)
			return ok && e.Delivered == n
		}
	}
	st.changes <- []endpoints.Endpoint{endpoint("a", endpoints.SensorChange)}
	eventually.Holds(t, "the first one has the backlog", delivered("a", 2))
	st.changes <- []endpoints.Endpoint{}
	r.produce(sensor, sensor, sensor)
	eventually.Holds(t, "it waits again", func() bool { return r.Ingest().Waits && r.Ingest().Lag != nil && *r.Ingest().Lag == 3 })
	st.changes <- []endpoints.Endpoint{endpoint("b", endpoints.SensorChange)}
	eventually.Holds(t, "the next one has what came meanwhile", delivered("b", 3))
	st.changes <- []endpoints.Endpoint{}
	r.produce(sensor)
	eventually.Holds(t, "it waits for a third one", func() bool { return r.Ingest().Waits && r.Ingest().Lag != nil && *r.Ingest().Lag == 1 })
	if in := r.Ingest(); in.Unrouted != 0 {
		t.Errorf("%d events are nobody's", in.Unrouted)
	}
	if at := r.stopped(); at != 5 {
		t.Errorf("%d is committed, want 5", at)
	}
	if st := r.Status(); st.Ready || !slices.Equal(st.NotReady, []string{"stopping: nothing more is read"}) {
		t.Errorf("after the stop it lacks %q", st.NotReady)
	}
}

// A chunk that an empty table was taken for is refused, and nothing of it is counted.
func TestEmptyTableTakesNothing(t *testing.T) {
	for _, waits := range []bool{true, false} {
		p := bare()
		p.options.WaitForEndpoints = waits
		p.router.apply(nil)
		c := event.NewChunk(topic, 0, 1, 0, func(*event.Chunk) {
			if waits {
				t.Error("it is settled")
			}
		})
		c.Add(0, 0, 0, nil, []byte(`{"eventType":"SensorChange"}`))
		p.letters = new(deadletter.Topic)
		taken := p.emit(c)
		p.router.routes.users.Wait()
		p.workers.Wait()
		if n := p.counts.unrouted.Load(); taken == waits || n > 0 == waits {
			t.Errorf("waitForEndpoints %v: taken %v, %d events are nobody's", waits, taken, n)
		}
	}
}

// Of events that nobody takes the status has the last few, and why.
func TestUnroutedSample(t *testing.T) {
	inBubble(t, func(p *Pipeline) {
		narrow := endpoint("a", endpoints.SensorChange)
		narrow.Filter = `subject = 'x'`
		p.router.apply([]endpoints.Endpoint{narrow})
		p.letters = new(deadletter.Topic)
		var offset int64
		chunk := func(types ...string) {
			c := event.NewChunk(topic, 3, len(types), 0, func(*event.Chunk) {})
			for _, typ := range types {
				c.Add(offset, 0, 0, nil, []byte(`{"eventType":"`+typ+`","subject":"y"}`))
				offset++
			}
			p.emit(c)
			synctest.Wait()
		}
		for range 7 {
			chunk("SensorChange", "SpaceChange")
			chunk("SpaceChange") // within the same second
			time.Sleep(time.Second)
		}
		chunk("SensorChange")
		got := p.Ingest().Sample
		if len(got) != unroutedSamples || p.counts.unrouted.Load() != 22 {
			t.Fatalf("of %d events the sample has %+v", p.counts.unrouted.Load(), got)
		}
		for i, want := range []string{"SpaceChange 10 " + whyType, "SpaceChange 13 " + whyType, "SpaceChange 16 " + whyType, "SpaceChange 19 " + whyType, "SensorChange 21 " + whyFilter} {
			if s := got[i]; fmt.Sprintf("%s %d %s", s.EventType, s.Offset, s.Why) != want || s.Topic != topic || s.Partition != 3 || s.At.IsZero() {
				t.Errorf("the sample is %+v, want %s", s, want)
			}
		}
	})
}
