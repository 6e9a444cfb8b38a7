package catchup

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
	"twinegress/sinks"
	"twinegress/sinks/discard"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	group     = "twins/egress" // a group may have a slash
	events    = "twins"
	positions = "positions"
)

// senders are a copy's.
type senders struct {
	behind *sinks.Behind
	mu     sync.Mutex
	all    map[string]*sinks.Sender
	order  []*sinks.Sender
}

// add adds senders: the first is of idOf(0).
func (s *senders) add(n int) *senders {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		e := endpoints.Endpoint{ID: idOf(len(s.order)), Type: endpoints.TypeEventHub, Recovery: endpoints.RecoveryCatchUp}
		one := sinks.NewSender(e, sinks.Options{Behind: s.behind}, discard.Open, nil, zap.NewNop())
		s.all[e.ID], s.order = one, append(s.order, one)
	}
	return s
}

func (s *senders) sender(id string) *sinks.Sender {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[id]
}

// cursors returns who is behind, and where.
func (s *senders) cursors(o *event.Ownership) map[string]int64 {
	at := make(map[string]int64)
	for _, one := range s.behind.Of(o) {
		p, _ := one.Position(o)
		at[one.Endpoint().ID] = p.Cursor
	}
	return at
}

// caughtUp has a sender give up what it has not got yet, and join.
func caughtUp(t *testing.T, s *sinks.Sender, o *event.Ownership) {
	t.Helper()
	s.Next(o, time.Now())
	s.Skip(o, o.Dispatched.Load())
	if !s.Join(o) {
		t.Error("it doesn't join")
	}
}

func idOf(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", n+1) }

// copyOf is a keeper that runs, with its senders.
type copyOf struct {
	*Keeper
	*senders
	lines *observer.ObservedLogs
	stop  func()
}

func start(t *testing.T, addrs []string, topic string, n int) *copyOf {
	t.Helper()
	c := build(t, KeeperOptions{Topic: topic, Connect: []kgo.Opt{kgo.SeedBrokers(addrs...)}}, n)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	c.stop = sync.OnceFunc(func() { cancel(); <-done; c.Close() })
	t.Cleanup(c.stop)
	return c
}

// build returns a keeper that doesn't run.
func build(t *testing.T, o KeeperOptions, n int) *copyOf {
	t.Helper()
	core, lines := observer.New(zapcore.DebugLevel)
	s := (&senders{behind: sinks.NewBehind(), all: make(map[string]*sinks.Sender)}).add(n)
	o.Group, o.Topics, o.Behind, o.Sender, o.Log = group, []string{events}, s.behind, s.sender, zap.New(core)
	k, err := NewKeeper(o)
	if err != nil {
		t.Fatal(err)
	}
	return &copyOf{Keeper: k, senders: s, lines: lines}
}

func (c *copyOf) assign(t *testing.T, committed int64, metadata string) *event.Ownership {
	t.Helper()
	o := &event.Ownership{Topic: events, Partition: 2}
	if err := c.Assigned(t.Context(), o, committed, metadata); err != nil {
		t.Fatal(err)
	}
	return o
}

func (c *copyOf) metadata(t *testing.T, o *event.Ownership) string {
	t.Helper()
	text, err := c.Metadata(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (c *copyOf) logged(message string) int {
	return len(slices.DeleteFunc(c.lines.All(), func(e observer.LoggedEntry) bool { return !strings.Contains(e.Message, message) }))
}

func brokers(t *testing.T) *kfake.Cluster {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, events))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

func dial(t *testing.T, cluster *kfake.Cluster) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// What one copy commits, the next one restores: positions and seeks, few and many.
func TestHandOver(t *testing.T) {
	for title, behind := range map[string]int{"nobody": 0, "in the commit": 100, "in the topic": 3000} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			cluster := brokers(t)
			a, b := start(t, cluster.ListenAddrs(), positions, behind), start(t, cluster.ListenAddrs(), positions, behind)
			o := a.assign(t, -1, "")
			want := make(map[string]int64)
			for i := range behind {
				at := sinks.Position{Cursor: int64(1000 + i), Resume: int64(i%2 - 1)}
				a.order[i].Seek(o, at.Cursor, at.Resume)
				want[idOf(i)] = at.Cursor
			}
			text := a.metadata(t, o)
			if len(text) > maxInline || (text == Version) != (behind == 0) || strings.Contains(text, namedMark) != (behind > 1000) {
				t.Errorf("metadata %.60q of %d bytes", text, len(text))
			}
			if again := a.metadata(t, o); again != text {
				t.Errorf("nothing has changed, but the metadata: %.60q, %.60q", text, again)
			}
			next := b.assign(t, 5000, text)
			if got := b.cursors(next); !reflect.DeepEqual(got, want) {
				t.Errorf("restored %d of %d", len(got), len(want))
			}
			if again := b.metadata(t, next); (behind < 1000) != (again == text) {
				t.Errorf("the next owner's metadata is %.60q", again) // a name is its own
			}
			b.Revoked(next)
			b.Released(next)
			if got := b.cursors(next); len(got) > 0 {
				t.Errorf("released, and still %d positions", len(got))
			}
			if !next.Ended.Load() {
				t.Error("senders don't know that the ownership has ended")
			}
			if _, err := b.Metadata(t.Context(), next); err == nil {
				t.Error("metadata of a partition that isn't owned")
			}
			if notes := b.Status().Notes; len(notes) > 0 {
				t.Errorf("notes: %q", notes)
			}
		})
	}
}

// A list that the topic doesn't take isn't named, and the partition isn't committed.
func TestStoreRefuses(t *testing.T) {
	cluster := brokers(t)
	c := start(t, cluster.ListenAddrs(), positions, 1000)
	o := c.assign(t, -1, "")
	for _, s := range c.order {
		s.Seek(o, 5, -1)
	}
	refuse := true
	cluster.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if !refuse {
			return nil, nil, false
		}
		request := r.(*kmsg.ProduceRequest)
		answer := request.ResponseKind().(*kmsg.ProduceResponse)
		for _, topic := range request.Topics {
			refused := kmsg.NewProduceResponseTopic()
			refused.Topic, refused.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				part := kmsg.NewProduceResponseTopicPartition()
				part.Partition, part.ErrorCode = p.Partition, kerr.TopicAuthorizationFailed.Code
				refused.Partitions = append(refused.Partitions, part)
			}
			answer.Topics = append(answer.Topics, refused)
		}
		return answer, nil, true
	})
	for range 2 { // the second time without asking
		if text, err := c.Metadata(t.Context(), o); !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Fatalf("%.60q, %v", text, err)
		}
	}
	if n := c.logged("positions can't be stored"); n != 1 || len(c.Status().Notes) != 1 {
		t.Errorf("%d lines, notes %q", n, c.Status().Notes)
	}
	refuse = false
	c.store.mu.Lock()
	c.store.failedAt = time.Time{} // the pause is over
	c.store.mu.Unlock()
	if text := c.metadata(t, o); !strings.Contains(text, namedMark) || c.logged("stored again") != 1 || len(c.Status().Notes) > 0 {
		t.Errorf("%.60q, notes %q", text, c.Status().Notes)
	}
}

// Without a topic what doesn't fit is lost with the copy, which it says before and the
// next owner afterwards.
func TestWithoutTopic(t *testing.T) {
	cluster := brokers(t)
	a, b := start(t, cluster.ListenAddrs(), "", 300), start(t, cluster.ListenAddrs(), "", 300)
	o := a.assign(t, -1, "")
	for i, s := range a.order {
		s.Seek(o, int64(i), -1)
	}
	text := a.metadata(t, o)
	if len(text) > maxInline || a.logged("don't fit") != 1 || len(a.Status().Notes) != 1 {
		t.Errorf("%d bytes, notes %q", len(text), a.Status().Notes)
	}
	next := b.assign(t, 1000, text)
	restored := b.cursors(next)
	if n := len(restored); n < 130 || n == 300 || restored[idOf(0)] != 0 {
		t.Errorf("%d restored", n)
	}
	if b.lost != 1 || b.logged("it isn't known who was behind") != 1 || len(b.Status().Notes) != 1 || !strings.Contains(b.Status().Notes[0], "the lowest of them is") {
		t.Errorf("lost %d, notes %q", b.lost, b.Status().Notes)
	}
	// Seeks that don't fit are said as well: they are done once more.
	for hash := range uint32(2000) {
		a.find(o).applied[hash] = true
	}
	a.find(o).changes++
	if a.metadata(t, o); a.logged("may be applied once more") != 1 {
		t.Error("seeks are left out, and nobody says so")
	}
	a.find(o).applied = nil
	a.find(o).changes++
	// All of them have caught up: nothing is left to say.
	for _, s := range a.order {
		caughtUp(t, s, o)
	}
	if text = a.metadata(t, o); text != Version || len(a.Status().Notes) > 0 {
		t.Errorf("%q, notes %q", text, a.Status().Notes)
	}
}

// Brokers may take less than they do by default.
func TestShorterMetadata(t *testing.T) {
	cluster := brokers(t)
	c := start(t, cluster.ListenAddrs(), positions, 100)
	o := c.assign(t, -1, "")
	for _, s := range c.order {
		s.Seek(o, 5, -1)
	}
	text := c.metadata(t, o)
	if strings.Contains(text, namedMark) {
		t.Fatalf("%q", text)
	}
	c.TooLong(o, text)
	if text = c.metadata(t, o); !strings.Contains(text, namedMark) || len(text) > minInline {
		t.Errorf("refused, and then %.100q", text)
	}
	c.TooLong(o, text)
	if got := c.metadata(t, o); got != text {
		t.Errorf("the shortest is refused, and then %.100q", got)
	}
}

// Endpoints that a copy doesn't know yet stay listed, and go on when they come.
func TestOrphans(t *testing.T) {
	cluster := brokers(t)
	a, b := start(t, cluster.ListenAddrs(), "", 2), start(t, cluster.ListenAddrs(), "", 1)
	o := a.assign(t, -1, "")
	a.order[0].Seek(o, 5, -1)
	a.order[1].Seek(o, 7, 9)
	text := a.metadata(t, o)
	next := b.assign(t, 10, text)
	l, _, _ := parseMetadata(b.metadata(t, next))
	if len(b.cursors(next)) != 1 || len(l.entries) != 2 {
		t.Fatalf("%v restored, %d listed", b.cursors(next), len(l.entries))
	}
	b.add(1)
	l, _, _ = parseMetadata(b.metadata(t, next))
	if at, _ := b.order[1].Position(next); at.Cursor != 7 || at.Resume != 9 || len(l.entries) != 2 {
		t.Errorf("came, and is at %+v; %d listed", at, len(l.entries))
	}

	// One that never comes is let go after a while.
	c := start(t, cluster.ListenAddrs(), "", 1)
	last := c.assign(t, 10, text)
	c.find(last).since = time.Now().Add(-grace)
	l, _, _ = parseMetadata(c.metadata(t, last))
	if len(l.entries) != 1 || c.logged("a position is dropped") != 1 {
		t.Errorf("%d listed", len(l.entries))
	}
}

// An older version commits over the list, which the topic still has: whoever is next
// goes on with that. Where there was none, nothing is lost and nothing is said.
func TestOlderVersion(t *testing.T) {
	const foreign = "twinegress-00000000-0000-4000-8000-000000000001"
	catchUp := []endpoints.Endpoint{{ID: idOf(0), Recovery: endpoints.RecoveryCatchUp}}
	t.Run("somebody behind", func(t *testing.T) {
		cluster := brokers(t)
		a, b := start(t, cluster.ListenAddrs(), positions, 2), start(t, cluster.ListenAddrs(), positions, 2)
		o := a.assign(t, -1, "")
		a.order[0].Seek(o, 5, -1)
		a.metadata(t, o)
		a.writeWitnesses(t.Context(), time.Now().Add(membersAfter))
		flush(t, a)
		next := b.assign(t, 500, foreign)
		if got := b.cursors(next); !reflect.DeepEqual(got, map[string]int64{idOf(0): 5}) || b.lost != 0 || b.logged("the last list that is known") != 1 {
			t.Errorf("restored %v, lost %d", got, b.lost)
		}
		// It has caught up: the next owner must not be told that it hasn't.
		caughtUp(t, b.order[0], next)
		b.metadata(t, next)
		b.Released(next)
		flush(t, b)
		c := start(t, cluster.ListenAddrs(), positions, 2)
		if got := c.cursors(c.assign(t, 500, foreign)); len(got) > 0 || c.lost != 0 {
			t.Errorf("restored %v, lost %d", got, c.lost)
		}
	})
	t.Run("an upgrade", func(t *testing.T) {
		for _, topic := range []string{positions, ""} {
			c := start(t, brokers(t).ListenAddrs(), topic, 1)
			c.Seeks([]endpoints.Endpoint{{ID: idOf(0)}})
			if c.assign(t, 500, foreign); c.lost != 0 || len(c.Status().Notes) > 0 {
				t.Errorf("with topic %q: %q", topic, c.Status().Notes)
			}
		}
	})
	t.Run("not known", func(t *testing.T) {
		c := start(t, brokers(t).ListenAddrs(), "", 1)
		c.Seeks(catchUp)
		if c.assign(t, 500, foreign); c.lost != 1 || len(c.Status().Notes) != 1 || !strings.Contains(c.Status().Notes[0], "before offset 500") {
			t.Errorf("lost %d: %q", c.lost, c.Status().Notes)
		}
	})
}

// flush waits until all that is under way to the topic is stored.
func flush(t *testing.T, c *copyOf) {
	t.Helper()
	if err := c.client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A partition waits for the list that its commit names; if the topic is gone, it is
// said, and it goes on with what is known.
func TestNamedListIsGone(t *testing.T) {
	cluster := brokers(t)
	a, b := start(t, cluster.ListenAddrs(), positions, 1000), start(t, cluster.ListenAddrs(), positions, 1000)
	o := a.assign(t, -1, "")
	for _, s := range a.order {
		s.Seek(o, 5, -1)
	}
	text := a.metadata(t, o)
	if _, err := kadm.NewClient(dial(t, cluster)).DeleteTopics(t.Context(), positions); err != nil {
		t.Fatal(err)
	}
	b.retry = 100 * time.Millisecond
	next := &event.Ownership{Topic: events, Partition: 2}
	assigned := make(chan error, 1)
	go func() { assigned <- b.Assigned(t.Context(), next, 500, text) }()
	eventually.Holds(t, "it is said that the partition waits", func() bool {
		notes := b.Status().Notes
		return len(notes) == 1 && strings.Contains(notes[0], "twins/2 is not read") && b.logged("a partition waits") == 1
	})
	if _, err := b.Metadata(t.Context(), next); !errors.Is(err, errNotRestored) {
		t.Errorf("metadata of a partition that waits: %v", err)
	}
	if err := <-assigned; err != nil || b.lost != 1 || b.logged("it isn't known who was behind") != 1 {
		t.Errorf("%v, lost %d", err, b.lost)
	}
}

// Lists that no commit names any more are deleted, and no others.
func TestTidy(t *testing.T) {
	cluster := brokers(t)
	c := start(t, cluster.ListenAddrs(), positions, 1000)
	o := c.assign(t, -1, "")
	admin := kadm.NewClient(dial(t, cluster))
	commit := func(text string) {
		t.Helper()
		offsets := make(kadm.Offsets)
		offsets.Add(kadm.Offset{Topic: events, Partition: 2, At: 9, LeaderEpoch: -1, Metadata: text})
		if err := admin.CommitAllOffsets(t.Context(), group, offsets); err != nil {
			t.Fatal(err)
		}
	}
	var texts []string
	for n := range 4 {
		for _, s := range c.order {
			s.Seek(o, int64(n), -1)
		}
		texts = append(texts, c.metadata(t, o))
	}
	left := func(now time.Time) (names []string) {
		t.Helper()
		c.tidy(t.Context(), now)
		flush(t, c)
		found, err := c.store.lookUp(t.Context(), partitionID{events, 2}, "")
		if err != nil {
			t.Fatal(err)
		}
		for name := range found.others {
			names = append(names, named(name))
		}
		slices.Sort(names)
		return names
	}
	late := time.Now().Add(2 * tidyInterval)
	commit(texts[2]) // the last one is under way
	if got := left(time.Now()); !slices.Equal(got, texts) {
		t.Errorf("at once: %q of %q", got, texts)
	}
	if got := left(late); !slices.Equal(got, texts[2:]) {
		t.Errorf("later: %q of %q", got, texts)
	}
	commit("another program's")
	if got := left(late); !slices.Equal(got, texts[2:]) {
		t.Errorf("after another program's commit: %q", got)
	}
	for _, s := range c.order {
		caughtUp(t, s, o)
	}
	commit(c.metadata(t, o))
	if got := left(late); len(got) > 0 {
		t.Errorf("nobody is behind, and %q is left", got)
	}
}

// An endpoint had got further than the mark of a partition, and comes to the next owner
// after what lies between was dispatched there: it gets that once more.
func TestLateEndpoint(t *testing.T) {
	a := start(t, brokers(t).ListenAddrs(), "", 0)
	l := list{entries: []entry{{id: idOf(0), cursor: 150, resume: 170, since: time.Now().Unix()}}}
	o := a.assign(t, 100, inline(l.encode()))
	o.Dispatched.Store(200)
	a.metadata(t, o)
	a.add(1)
	a.metadata(t, o)
	if at, is := a.order[0].Position(o); !is || at.Cursor != 100 || at.Resume != 100 {
		t.Errorf("position %+v, %t", at, is)
	}
}
