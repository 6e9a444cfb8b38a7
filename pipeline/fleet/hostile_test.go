package fleet

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"go.uber.org/zap"

	"twinegress/internal/eventually"
	"twinegress/sinks"
)

// client returns a client of whoever may write to the topic.
func client(t *testing.T, addrs []string) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.DefaultProduceTopic(topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (c *one) echoes() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.position.echoedAt) < staleAfter
}

// A copy whose records somebody takes out of the topic, as others do when it was
// silent for long, says all of it again.
func TestBuriedAlive(t *testing.T) {
	addrs := brokers(t)
	a, b := start(t, addrs, "a", brief(0, sinks.StateReady, 4)), start(t, addrs, "b", brief(0, sinks.StateReady, 8))
	a.awaits(t, 5*time.Second, 2, 0, 12)
	b.awaits(t, 5*time.Second, 2, 0, 12)
	id, err := uuidOf(0)
	if err != nil {
		t.Fatal(err)
	}
	admin := client(t, addrs)
	for _, key := range []string{blockKey(a.id, blockOf(id)), headKey(a.id)} {
		if err := admin.ProduceSync(context.Background(), &kgo.Record{Key: []byte(key)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	b.awaits(t, 5*time.Second, 1, 0, 8)
	b.awaits(t, 5*time.Second, 2, 0, 12)
}

// The topic is deleted, and another one is there afterwards.
func TestAnotherTopic(t *testing.T) {
	addrs := brokers(t)
	a, b := start(t, addrs, "a", brief(0, sinks.StateReady, 4)), start(t, addrs, "b", brief(0, sinks.StateReady, 8))
	a.awaits(t, 5*time.Second, 2, 0, 12)
	admin := kadm.NewClient(client(t, addrs))
	if _, err := admin.DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	eventually.Within(t, 3*staleAfter, "the echo ends", func() bool { return !a.echoes() })
	eventually.Within(t, 40*time.Second, "the echo comes back", func() bool { return a.echoes() && b.echoes() })
	a.awaits(t, 5*time.Second, 2, 0, 12)
	c := start(t, addrs, "c", brief(0, sinks.StateReady, 16))
	c.awaits(t, 10*time.Second, 3, 0, 28)
}

// A copy that may not write is told what others say while these go on saying it, and
// does what they ask.
func TestMayNotWrite(t *testing.T) {
	acl := func(o kmsg.ACLOperation) kfake.ACL {
		return kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: topic, Pattern: kmsg.ACLResourcePatternTypeLiteral, Operation: o, Allow: true}
	}
	addrs := brokers(
		t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.Superuser("PLAIN", "admin", "admin"),
		kfake.User("PLAIN", "reader", "pass", acl(kmsg.ACLOperationDescribe), acl(kmsg.ACLOperationRead)),
	)
	login := func(user, pass string) []kgo.Opt {
		return []kgo.Opt{kgo.SeedBrokers(addrs...), kgo.SASL(plain.Auth{User: user, Pass: pass}.AsMechanism())}
	}
	a := startIn(t, "twinegress", login("admin", "admin"), "a", brief(0, sinks.StateReady, 4))
	eventually.Holds(t, "the topic is there", a.echoes)
	b := startIn(t, "twinegress", login("reader", "pass"), "b", brief(0, sinks.StateReady, 8))
	b.awaits(t, 5*time.Second, 2, 0, 12)
	eventually.Holds(t, "what is wrong is said", func() bool {
		return strings.HasPrefix(b.Report().Notice, "what this copy says doesn't come back")
	})
	if _, notice := a.Retry(t.Context(), idOf(0)); notice != "" {
		t.Error(notice)
	}
	eventually.Holds(t, "the retry", func() bool {
		b.pipeline.mu.Lock()
		defer b.pipeline.mu.Unlock()
		return len(b.pipeline.retried) == 1
	})
}

// How old a command is is told by the brokers' clock: that of a process may be off.
func TestCommandOfAnotherClock(t *testing.T) {
	f := New(Options{Pipeline: &fake{instance: "a"}, Topic: topic, Log: zap.NewNop()})
	brokers := time.Now().Add(-time.Hour) // their clock is behind
	now := time.Now()
	f.take(&kgo.Record{Key: []byte(headKey(f.id)), Value: []byte("{}"), Timestamp: brokers}, now)
	command := func(id string, at time.Time) bool {
		value := fmt.Sprintf(`{"v":1,"id":%q,"retry":%q,"instance":"b"}`, id, idOf(0))
		_, ok := f.take(&kgo.Record{Key: []byte(commandKey("b-00000000")), Value: []byte(value), Timestamp: at}, now.Add(2*time.Second))
		return ok
	}
	if !command("1", brokers.Add(time.Second)) || command("1", brokers.Add(time.Second)) {
		t.Error("a new command is not done once")
	}
	if command("2", brokers.Add(time.Second-expiry)) || !command("3", brokers.Add(3*time.Second-expiry)) {
		t.Error("a command is done at the wrong age")
	}
}

// Whoever may write to the topic may name any number of endpoints: a report is bounded.
func TestEndpointsThatNobodyHas(t *testing.T) {
	b := newBuilder(time.Now())
	add := func(n int, known *identity) {
		e := entry{state: sinks.StateReady, routed: 1, pending: 1}
		binary.BigEndian.PutUint64(e.id[8:], uint64(n)+1)
		b.addEntry("x", &e, known)
	}
	for n := range 3 {
		add(n, &identity{})
	}
	for n := range maxForeign {
		add(3+n, nil)
	}
	add(0, nil) // of its own another copy speaks
	if len(b.endpoints) != 3+maxForeign || b.report.omitted != 0 {
		t.Fatalf("at the limit: %d, %d", len(b.endpoints), b.report.omitted)
	}
	add(3+maxForeign, nil)
	r := b.build()
	if len(r.Endpoints) != 3+maxForeign || r.Endpoints[0].Routed != 2 || len(r.Troubles) == 0 || !strings.HasPrefix(r.Troubles[0].What, "Copies name more than 20000 endpoints") {
		t.Errorf("%d endpoints, %+v", len(r.Endpoints), r.Troubles)
	}
}

// A number from outside that is too large for a duration.
func TestWaitOfAges(t *testing.T) {
	in, out := full(), entry{}
	for _, of := range []struct{ said, read int64 }{{maxWait, maxWait}, {maxWait + 1, maxWait}, {maxCount, maxWait}} {
		in.oldest = of.said
		if err := out.read(in.append(nil)); err != nil || out.oldest != of.read || time.Duration(out.oldest)*time.Millisecond < 0 {
			t.Errorf("%d: %d, %v", of.said, out.oldest, err)
		}
	}
}

func uuidOf(n int) (uuid.UUID, error) { return uuid.Parse(idOf(n)) }
