package catchup

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/event"
	"twinegress/internal/eventually"
)

// A pass begins at the lowest offset, goes on while somebody is where it is, and goes
// back for others when nobody is, or when they have waited for a turn.
func TestPlace(t *testing.T) {
	for name, tt := range map[string]struct {
		from, at int64 // of the window; at is where to read on
		served   int
		next     []int64
		want     int64 // where to read on
		begins   bool
	}{
		"the first pass":                      {-1, -1, 0, []int64{5, 9}, 5, true},
		"one is where it is":                  {100, 200, 10, []int64{200}, 200, false},
		"one is in the window":                {100, 200, 10, []int64{100}, 200, false},
		"one is behind, another here":         {100, 200, turn - 1, []int64{99, 150}, 200, false},
		"one has been behind for a turn":      {100, 200, turn, []int64{99, 150}, 99, true},
		"nobody is behind, for a turn":        {100, 200, turn, []int64{100, 150}, 200, false},
		"all are behind":                      {100, 200, 10, []int64{7, 99}, 7, true},
		"all are ahead":                       {100, 200, 10, []int64{201, 300}, 201, true},
		"one is behind, another ahead":        {100, 200, 10, []int64{99, 201}, 99, true},
		"without a window":                    {200, 200, 10, []int64{200, 300}, 200, false},
		"one is behind, without a window":     {200, 200, 10, []int64{199}, 199, true},
		"one is ahead, another here":          {100, 200, turn, []int64{200, 300}, 200, false},
		"one is behind for a turn, one ahead": {100, 200, turn, []int64{99, 300}, 99, true},
	} {
		p := &reading{at: tt.at, served: tt.served}
		if tt.from < tt.at {
			p.window = []piece{{chunk: event.NewChunk("t", 0, 0, 0, (*event.Chunk).Free), from: tt.from, to: tt.at}}
		}
		var in []candidate
		for _, next := range tt.next {
			in = append(in, candidate{next: next})
		}
		begins := p.place(in)
		if begins != tt.begins || p.at != tt.want || begins && (p.served != 0 || len(p.window) > 0) {
			t.Errorf("%s: begins %t, reads on at %d, served %d, %d in the window", name, begins, p.at, p.served, len(p.window))
		}
	}
}

// A window keeps what somebody needs, and of that the newest up to its bytes.
func TestTrim(t *testing.T) {
	for name, tt := range map[string]struct {
		before int64
		most   int // pieces
		first  int64
	}{
		"all of it is needed":    {0, 10, 0},
		"the first is not":       {10, 10, 10},
		"a part of the first is": {9, 10, 0},
		"none is":                {50, 10, 50},
		"there is room for two":  {0, 2, 30},
		"there is none":          {0, 0, 50},
	} {
		p := &reading{at: 50}
		size := int64(0)
		for from := int64(0); from < 50; from += 10 {
			c := event.NewChunk("t", 0, 1, 40<<10, (*event.Chunk).Free)
			c.Add(from, 0, 0, nil, make([]byte, 10))
			size = max(size, c.Bytes())
			p.window = append(p.window, piece{chunk: c, from: from, to: from + 10})
		}
		p.trim(tt.before, int64(tt.most)*size)
		if p.first() != tt.first && tt.most != 2 || tt.most == 2 && p.first() > tt.first { // pooled chunks may be smaller
			t.Errorf("%s: it begins at %d, want %d", name, p.first(), tt.first)
		}
		p.clear()
	}
}

// A step that is under way when its ownership is dropped gives nothing more, nor does
// it make anybody join.
func TestStepAfterDrop(t *testing.T) {
	t.Parallel()
	e := newReaderEnv(t, 1, 64<<20, 16<<20)
	e.produce(0, 10, 10)
	a := e.sender("a", 100, all)
	a.fallBehind(0, 0)
	p := newReading(t.Context(), e.owned[0])
	p.running = true
	e.Reader.readings[p.owned] = p
	c := event.NewChunk(readerTopic, 0, 1, 10, (*event.Chunk).Free)
	c.Add(0, 0, 0, nil, []byte("x"))
	of := piece{chunk: c, from: 0, to: 1}
	s := step{Reader: e.Reader, reading: p}
	e.Drop(p.owned)
	if s.give(&of, []candidate{{Sender: a, next: 0}}) || len(a.got) > 0 {
		t.Error("it is given events")
	}
	p.end = 10
	p.owned.Dispatched.Store(1)
	if in := s.join([]candidate{{Sender: a, next: 5}}, true); len(in) != 0 || !a.behind(p.owned) {
		t.Error("it joins")
	}
	c.Settle(1)

	// Nothing is kept of an ownership that ends meanwhile.
	p.running = false
	e.Reader.mu.Lock()
	e.Reader.start(p, time.Now())
	e.Reader.mu.Unlock()
	e.Forget(p.owned)
	e.Reader.steps.Wait()
	e.Forget(p.owned) // again does no harm
	if len(e.Reader.readings) > 0 {
		t.Error("an ownership that has ended is kept")
	}
}

// That events have expired is said once of an endpoint in a partition, however often it
// happens while it is behind.
func TestExpiredIsSaidOnce(t *testing.T) {
	t.Parallel()
	e := newReaderEnv(t, 1, 64<<20, 16<<20)
	e.produce(0, 100, 10)
	a, b := e.sender("a", 100, all), e.sender("b", 100, all)
	c, err := newClient([]kgo.Opt{kgo.SeedBrokers(e.broker.ListenAddrs()...)}, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	s := step{Reader: e.Reader, reading: newReading(t.Context(), e.owned[0])}
	for _, start := range []int64{10, 20, 30} {
		_, err := kadm.NewClient(e.client).DeleteRecords(t.Context(), kadm.Offsets{readerTopic: {0: {Topic: readerTopic, At: start}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range []*fakeSender{a, b} {
			to.fallBehind(0, start-5)
			if err := s.outOfRange(c, []candidate{{Sender: to, next: start - 5}}); err != nil {
				t.Error(err)
			}
		}
	}
	if a.expired != 15 || b.expired != 15 || e.log.Len() != 2 {
		t.Errorf("%d and %d have expired, and the log has %d lines", a.expired, b.expired, e.log.Len())
	}
	// An offset that the brokers have after all is tried again.
	if err := s.outOfRange(c, []candidate{{Sender: a, next: 50}}); err == nil {
		t.Error("it is out of range, and isn't")
	}
}

// What endpoints are given counts in memory as well: the events are copied for each.
func TestReaderManySenders(t *testing.T) {
	t.Parallel()
	const n, many, maxInFlight = 1000, 50, 4 << 20
	e := newReaderEnv(t, 1, maxInFlight, 16<<20)
	for range n / 100 {
		e.produce(0, 100, 10)
	}
	for range many {
		s := e.sender("s", 1<<30, all)
		s.auto.Store(false)
		s.fallBehind(0, 0)
	}
	e.run()
	eventually.Holds(t, "reading waits for memory", func() bool { return e.Reader.Status().Waiting == string(waitsForMemory) })
	pending := 0
	for _, s := range e.senders {
		s.mu.Lock()
		pending += len(s.pending)
		s.mu.Unlock()
	}
	if most := maxInFlight / shareOfMemory / copyBytes; pending < most/2 || pending > most*5/4 {
		t.Errorf("%d events have no outcome, want about %d", pending, most)
	}
	eventually.Holds(t, "all have caught up", func() bool {
		live := true
		for _, s := range e.senders {
			s.settle(100)
			live = live && s.live()
		}
		return live
	})
	for _, s := range e.senders {
		s.wants(0, 0, n)
	}
}

// An endpoint that is removed is in no table any more, and has its position until its
// lanes are drained, which takes a while: others don't wait for that, nor does it cost
// anything.
func TestUnknownSender(t *testing.T) {
	t.Parallel()
	e := newReaderEnv(t, 1, 64<<20, 16<<20)
	const n = 10_000
	for range 100 { // batches
		e.produce(0, n/100, 1000)
	}
	removed, other := e.sender("removed", 100, all), e.sender("other", n, all)
	removed.unknown.Store(true)
	removed.fallBehind(0, 0)
	e.run()
	eventually.Holds(t, "it is looked up", func() bool { return e.prepared.Load() > 0 })
	other.fallBehind(0, n/2)
	eventually.Holds(t, "the other one catches up", other.live)
	other.wants(0, n/2, n)
	if looked := e.prepared.Load(); looked > n {
		t.Errorf("chunks were looked up %d times", looked)
	}
	removed.unknown.Store(false)
	eventually.Holds(t, "it is served where it was", removed.live)
	removed.wants(0, 0, n)
}

// A fetch that is larger than all there is room for begins, but not beside another one.
func TestAdmits(t *testing.T) {
	r := &Reader{share: 100}
	for _, tt := range []struct {
		memory, inFlight int64
		want             bool
	}{
		{100, 0, true},
		{60, 40, true},
		{61, 40, true},
		{51, 50, false},
		{1000, 0, true},
		{1000, 49, true},
		{1000, 50, false},
		{1, 100, false},
		{1, 1000, false},
	} {
		if got := r.admits(tt.memory, tt.inFlight); got != tt.want {
			t.Errorf("%d beside %d: %t", tt.memory, tt.inFlight, got)
		}
	}
}
