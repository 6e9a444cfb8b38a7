package ingest

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/blackhole"
	"twinegress/internal/config"
	"twinegress/internal/eventually"
)

// Contact is lost by itself when no broker answers for long enough, and nothing but
// an answer restores it.
func TestContact(t *testing.T) {
	for sessionTimeout, patience := range map[time.Duration]time.Duration{6 * time.Second: 6 * time.Second, 45 * time.Second: maxSilence} {
		synctest.Test(t, func(t *testing.T) {
			c := newContact(sessionTimeout)
			says := func(want ...string) {
				t.Helper()
				got := c.missing("g")
				if len(got) != len(want) {
					t.Fatalf("%v: %q, want %q", sessionTimeout, got, want)
				}
				for i := range want {
					if !strings.Contains(got[i], want[i]) {
						t.Errorf("%v: %q, want %q", sessionTimeout, got[i], want[i])
					}
				}
			}
			answer := func(err error) { c.OnBrokerRead(kgo.BrokerMetadata{}, 0, 0, 0, 0, err) }
			time.Sleep(2 * time.Second)
			says("no Kafka broker has answered yet, for 2s", `the consumer group "g" is not joined yet, for 2s`)
			answer(nil)
			if out := c.joined(); out != 0 {
				t.Errorf("out of the group for %v", out)
			}
			says()
			time.Sleep(patience)
			says()
			time.Sleep(time.Second)
			answer(errors.New("cut"))
			says("no Kafka broker has answered for " + (patience + time.Second).String())
			answer(nil)
			says()
			c.rejected(errors.New("first"))
			time.Sleep(time.Second)
			answer(nil)
			c.rejected(errors.New("refused\x1b"))
			says(`not a member of the consumer group "g" for 1s: refused\u001b`)
			if out := c.joined(); out != time.Second {
				t.Errorf("out of the group for %v", out)
			}
			says()
			for range 4 { // once, and again after the pause, is a partition that moves
				answer(nil)
				c.failed("twins", errors.New("moved"), time.Now())
				says()
				time.Sleep(failingPause + 1)
			}
			answer(nil)
			for range 5 {
				c.failed("twins", errors.New("refused\x1b"), time.Now())
				says()
				time.Sleep(time.Second)
			}
			answer(nil)
			c.failed("twins", errors.New("refused\x1b"), time.Now())
			says(`reading fails for 5s, of the ingest topic twins: refused\u001b`)
			time.Sleep(failingPause)
			answer(nil)
			says("reading fails for 15s")
			time.Sleep(time.Nanosecond)
			says()
		})
	}
}

// A topic that may not be read is said, though the group has this copy for a member;
// it is ready again some time after reading succeeds.
func TestReadingIsRefused(t *testing.T) {
	eachProtocol(t, 1, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		var allowed atomic.Bool
		k.ControlKey(kmsg.Fetch.Int16(), func(r kmsg.Request) (kmsg.Response, error, bool) {
			k.KeepControl()
			if allowed.Load() {
				return nil, nil, false
			}
			return failedFetch(r.(*kmsg.FetchRequest), kerr.TopicAuthorizationFailed), nil, true
		})
		h := consume(t, cfg, true)
		eventually.Holds(t, "reading is refused", func() bool {
			missing := strings.Join(h.NotReady(), " ")
			return strings.Contains(missing, "reading fails for ") && strings.Contains(missing, "TOPIC_AUTHORIZATION_FAILED")
		})
		if !h.Status().Member {
			t.Errorf("it is no member: %q", h.NotReady())
		}
		allowed.Store(true)
		eventually.Holds(t, "it is ready", func() bool { return len(h.NotReady()) == 0 })
	})
}

// A copy that only waits has contact, be it for events or for outcomes; it loses it
// by itself when its broker doesn't answer any more, and then doesn't know the lag.
func TestSilentBroker(t *testing.T) {
	eachProtocol(t, 1, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		cfg.SessionTimeout = 6 * time.Second // a heartbeat every 2 s
		cfg.MaxInFlightBytes = 1
		var network blackhole.Network
		h := consume(t, cfg, false, kgo.Dialer(network.Dial))
		ready := func() bool { return len(h.NotReady()) == 0 && h.Status().Lag != nil }
		eventually.Holds(t, "it is ready", ready)
		answered := func(what string) {
			t.Helper()
			before := h.Status().HeardAt
			eventually.Holds(t, "the brokers answer "+what, func() bool { return h.Status().HeardAt.After(before.Add(time.Second)) })
			if !ready() {
				t.Errorf("%s: %q", what, h.NotReady())
			}
		}
		answered("while there is nothing to read")
		produce(t, k, 1, 1, 100)
		eventually.Holds(t, "polling waits", h.Full)
		answered("while polling waits")

		network.Begin()
		eventually.Holds(t, "nobody answers", func() bool { return len(h.NotReady()) > 0 })
		if st := h.Status(); !strings.Contains(h.NotReady()[0], "no Kafka broker has answered for ") || st.Lag != nil || st.Silence < cfg.SessionTimeout {
			t.Errorf("%q, status %+v", h.NotReady(), st)
		}
	})
}

// That no broker answers, and that one does again, is logged once each.
func TestSilenceIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		c := newContact(time.Minute)
		look := func(want int) {
			t.Helper()
			if c.watch(zap.New(core)); logs.Len() != want {
				t.Errorf("after %v: %d lines, want %d", time.Since(c.begun), logs.Len(), want)
			}
		}
		answer := func() { c.OnBrokerRead(kgo.BrokerMetadata{}, 0, 0, 0, 0, nil) }
		time.Sleep(time.Second)
		answer()
		time.Sleep(maxSilence)
		look(0)
		time.Sleep(time.Second)
		look(1)
		time.Sleep(time.Minute)
		look(1)
		answer()
		time.Sleep(time.Second)
		look(2)
		look(2)
		if off := logs.All()[1].ContextMap()["off"]; off != maxSilence+time.Second+time.Minute {
			t.Errorf("off for %v", off)
		}
	})
}

// A group that refuses this copy is said, with the brokers' reason, also where they
// did so after they had taken it; it is ready again when they take it again.
func TestRefusedByTheGroup(t *testing.T) {
	eachProtocol(t, 1, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		cfg.SessionTimeout = 6 * time.Second
		h := consume(t, cfg, true)
		eventually.Holds(t, "it is ready", func() bool { return len(h.NotReady()) == 0 })
		var refuses atomic.Bool
		refuses.Store(true)
		for _, request := range []kmsg.Request{kmsg.NewPtrJoinGroupRequest(), kmsg.NewPtrHeartbeatRequest(), kmsg.NewPtrConsumerGroupHeartbeatRequest()} {
			k.ControlKey(request.Key(), func(r kmsg.Request) (kmsg.Response, error, bool) {
				k.KeepControl()
				if !refuses.Load() {
					return nil, nil, false
				}
				response := r.ResponseKind()
				switch response := response.(type) {
				case *kmsg.JoinGroupResponse:
					response.ErrorCode = kerr.GroupAuthorizationFailed.Code
				case *kmsg.HeartbeatResponse:
					response.ErrorCode = kerr.GroupAuthorizationFailed.Code
				case *kmsg.ConsumerGroupHeartbeatResponse:
					response.ErrorCode = kerr.GroupAuthorizationFailed.Code
				}
				return response, nil, true
			})
		}
		eventually.Holds(t, "it is refused", func() bool { return !h.Status().Member })
		if missing := strings.Join(h.NotReady(), " "); !strings.Contains(missing, "not a member of the consumer group \"g\" for ") ||
			!strings.Contains(missing, "GROUP_AUTHORIZATION_FAILED") || h.Status().Lag != nil {
			t.Errorf("%q, status %+v", missing, h.Status())
		}
		refuses.Store(false)
		eventually.Holds(t, "it is ready again", func() bool { return len(h.NotReady()) == 0 && h.Status().Lag != nil })
	})
}

// A topic that doesn't exist is said, whatever the group says.
func TestTopicThatIsMissing(t *testing.T) {
	eachProtocol(t, 1, func(t *testing.T, k *kfake.Cluster, cfg config.Ingest) {
		cfg.Topics = []string{"later"}
		h := consume(t, cfg, true)
		says := func() string {
			signal(h.offsets.due)
			return strings.Join(h.NotReady(), "\n")
		}
		eventually.Holds(t, "the topic is missed", func() bool { return says() == "the ingest topic later does not exist" })
		if err := k.CreateTopic("later", 1, nil); err != nil {
			t.Fatal(err)
		}
		h.member.client.ForceMetadataRefresh()
		eventually.Holds(t, "it is ready", func() bool { return says() == "" })
	})
}

// What one broker of several doesn't answer is not known; nor is a sum with it.
func TestLagOfOneBroker(t *testing.T) {
	t.Parallel()
	k := broker(t, 2)
	cfg := ingestConfig(k)
	h := consume(t, cfg, true)
	eventually.Holds(t, "there is no lag", func() bool { return lagIs(h.Source, 0) })
	p := h.partitions.get(topicPartition{topic, 1})
	p.mu.Lock()
	p.endAt = time.Now().Add(-lagAge - time.Second)
	p.mu.Unlock()
	if st := h.Status(); st.Lag != nil || time.Since(st.LagAt) < lagAge {
		t.Errorf("the lag is %d, as of %v", *st.Lag, st.LagAt)
	}
}
