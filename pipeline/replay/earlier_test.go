package replay

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
	"twinegress/pipeline/letters"
)

// set appends a letter of an endpoint to partition 0.
func (e *env) set(endpoint, reason string, offset int) {
	e.Helper()
	r := &kgo.Record{Topic: topic, Value: []byte(`{"id":"1","subject":"s","eventType":"SensorChange","data":{}}`)}
	for _, h := range [][2]string{{"reason", reason}, {"topic", "twins"}, {"partition", "0"}, {"offset", fmt.Sprint(offset)}, {"endpoint", endpoint}, {"time", "t"}} {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h[0], Value: []byte(h[1])})
	}
	if err := e.client.ProduceSync(e.Context(), r).FirstErr(); err != nil {
		e.Fatal(err)
	}
}

func hubWith(id string) endpoints.Endpoint {
	return storetest.Hub("hub"+id[:1], func(e *endpoints.Endpoint) {
		e.ID, e.EventTypes, e.Name = id, []string{endpoints.SensorChange}, "hub "+id[:1]
	})
}

const (
	idA = "11111111-1111-4111-8111-111111111111"
	idB = "22222222-2222-4222-8222-222222222222"
)

func (e *env) reader() *letters.Reader {
	return &letters.Reader{Topic: topic, BatchBytes: int64(e.config.Limits.BatchBytes), Connect: []kgo.Opt{kgo.SeedBrokers(e.config.Brokers...)}}
}

func (e *env) earlier(s letters.Selection) []Earlier {
	e.Helper()
	found, err := FindEarlier(e.Context(), "g", topic, s, []kgo.Opt{kgo.SeedBrokers(e.config.Brokers...)})
	if err != nil {
		e.Fatal(err)
	}
	return found
}

func (e *env) preview(s letters.Selection, earlier []Earlier) Preview {
	e.Helper()
	r := New(Options{Endpoints: []endpoints.Endpoint{hubWith(idA), hubWith(idB)}, Selection: s, Earlier: earlier, Log: zap.NewNop()})
	p, err := r.Preview(e.Context(), e.reader())
	if err != nil {
		e.Fatal(err)
	}
	if p.Letters != p.Send+p.Skipped.Total() {
		e.Errorf("the parts are not the whole: %+v", p)
	}
	return p
}

// done replays a selection with no endpoint configured, which skips all letters: so
// its group is done with them.
func (e *env) done(s letters.Selection) {
	e.Helper()
	e.config.Group = Group("g", s, time.Time{})
	b, err := OpenBacklog(e.Context(), e.config, s.Since, s.Until, []kgo.Opt{kgo.SeedBrokers(e.config.Brokers...)}, zap.NewNop())
	if err != nil {
		e.Fatal(err)
	}
	result, err := New(Options{Source: b, Selection: s, ShutdownTimeout: 10 * time.Second, Log: zap.NewNop()}).Run(e.Context())
	if err != nil || !result.Complete {
		e.Fatalf("%+v, %v", result, err)
	}
}

// A preview counts what would be sent, by endpoint and reason, and neither sends nor
// commits it.
func TestPreview(t *testing.T) {
	e := newEnv(t, 2)
	for i := range 600 { // more than are looked at together
		e.set(idA, "backoff", i)
	}
	e.set(idA, "too_large", 601)
	e.set(idB, "made up", 602)
	e.set("33333333-3333-4333-8333-333333333333", "backoff", 603)
	e.produce(1, time.Now())
	for range 2 { // the second sees what the first saw
		p := e.preview(letters.Selection{}, e.earlier(letters.Selection{}))
		if got := fmt.Sprint(p.Letters, p.Send, p.Skipped, len(p.Earlier)); got != fmt.Sprint(604, 602, Skipped{UnknownEndpoint: 1, Unreadable: 1}, 0) {
			t.Errorf("preview %+v", p)
		}
		if len(p.Groups) != 3 || p.Groups[0].Letters != 600 || p.Groups[0].Name != "hub 1" || p.Groups[0].Reason != "backoff" || p.Groups[2].Reason != "other" {
			t.Errorf("groups %+v", p.Groups)
		}
	}
	p := e.preview(letters.Selection{Endpoint: idA, Reasons: []string{"too_large", "rejected"}}, nil)
	if p.Send != 1 || p.Skipped.OtherReason != 600 || p.Skipped.OtherEndpoint != 2 {
		t.Errorf("a selection: %+v", p)
	}
}

// What another replay is done with is not sent again, nor is it forgotten: the result
// says how many there are and who was done with them.
func TestEarlierReplays(t *testing.T) {
	e := newEnv(t, 1)
	for i := range 10 {
		e.set(idA, "backoff", i)
		e.set(idB, "backoff", i)
	}
	before := time.Now().Add(-time.Second)
	e.done(letters.Selection{Endpoint: idA})
	e.set(idA, "unreachable", 20) // since

	p := e.preview(letters.Selection{}, e.earlier(letters.Selection{}))
	if p.Send != 11 || p.Skipped.ReplayedBefore != 10 || len(p.Earlier) != 1 || p.Earlier[0].Endpoint != idA || p.Earlier[0].Letters != 10 {
		t.Errorf("all, after one endpoint's: %+v", p)
	}
	if at := p.Earlier[0].At; at.Before(before.Truncate(time.Second)) || time.Since(at) > time.Minute {
		t.Errorf("that was at %s", at)
	}
	p = e.preview(letters.Selection{Endpoint: idA, Reasons: []string{"backoff"}}, e.earlier(letters.Selection{Endpoint: idA, Reasons: []string{"backoff"}}))
	if p.Send != 0 || p.Skipped.ReplayedBefore != 10 {
		t.Errorf("one of its reasons: %+v", p)
	}
	if found := e.earlier(letters.Selection{Endpoint: idB}); len(found) != 0 {
		t.Errorf("the other endpoint's: %+v", found)
	}
	e.done(letters.Selection{Reasons: []string{"unreachable"}})
	p = e.preview(letters.Selection{}, e.earlier(letters.Selection{}))
	if p.Send != 10 || p.Skipped.ReplayedBefore != 11 || len(p.Earlier) != 2 {
		t.Errorf("after a reason's: %+v", p)
	}
	// The same selection once more, in a group of its own for that.
	if p = e.preview(letters.Selection{}, nil); p.Send != 21 {
		t.Errorf("again: %+v", p)
	}
	// A run skips what the preview says that it skips.
	e.config.Group = "other"
	b := e.open(time.Time{})
	result, err := New(Options{Source: b, Endpoints: []endpoints.Endpoint{hubWith(idA)}, Selection: letters.Selection{Endpoint: idA}, Earlier: e.earlier(letters.Selection{Endpoint: idA}), ShutdownTimeout: 10 * time.Second, Log: zap.NewNop()}).Run(t.Context())
	if err != nil || result.Delivered != 0 || result.Skipped.ReplayedBefore != 11 || result.Skipped.OtherEndpoint != 10 || len(result.Earlier) != 2 {
		t.Errorf("%+v, %v", result, err)
	}
}

// A group that is past the end of the topic is of one that was there before: nothing of
// this one is done by it.
func TestEarlierTopic(t *testing.T) {
	e := newEnv(t, 1)
	for i := range 5 {
		e.set(idA, "backoff", i)
	}
	e.done(letters.Selection{})
	if found := e.earlier(letters.Selection{}); len(found) != 1 {
		t.Fatalf("%+v", found)
	}
	admin := kadm.NewClient(e.client)
	if _, err := admin.DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	e.client.PurgeTopicsFromProducing(topic)
	e.set(idA, "backoff", 9)
	if found := e.earlier(letters.Selection{}); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}

// Until is excluded, and bounds what is read.
func TestUntil(t *testing.T) {
	e := newEnv(t, 1)
	now := time.Now().Truncate(time.Second)
	for i := range 5 {
		e.produce(0, now.Add(time.Duration(i-5)*time.Hour))
	}
	open := func(since, until time.Time) *Backlog {
		b, err := OpenBacklog(t.Context(), e.config, since, until, []kgo.Opt{kgo.SeedBrokers(e.config.Brokers...)}, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	e.read(open(time.Time{}, now.Add(-3*time.Hour)), allChunks, 2, 2)
	e.config.Group = "another"
	e.read(open(now.Add(-4*time.Hour), now.Add(-2*time.Hour)), allChunks, 2, 2)
	e.config.Group = "a third"
	e.read(open(time.Time{}, now.Add(-time.Hour*9)), allChunks, 0, 0)
}
