package sinks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// world is a partitioned topic with a group that has one copy at a time, which may be
// killed at any moment; and a service, which may fail. What is committed is what the
// next copy has.
type world struct {
	t      *testing.T
	random *rand.Rand
	topic  [2]int64 // the length of each partition's log

	mu        sync.Mutex
	committed [2]commit
	down      bool
	hangs     time.Duration
	seen      [2]map[int64]int // how often each offset arrived
	last      [2]int64         // the highest that arrived first
	reordered []string
	starts    [2]int64 // retention
	expired   [2]map[int64]bool
}

// commit is a mark with the list beside it.
type commit struct {
	mark int64
	list []Position
}

// life is one copy.
type life struct {
	*world
	behind *Behind
	sender *Sender
	ctx    context.Context
	kill   context.CancelFunc
	owned  [2]*event.Ownership
	tasks  sync.WaitGroup

	stop    context.CancelFunc // of what reads and commits
	reading sync.WaitGroup

	mu     sync.Mutex
	window [2]struct {
		mark int64
		open []*pendingChunk
	}
}

type pendingChunk struct {
	last    int64
	settled bool
}

func caughtUp(paused bool) endpoints.Endpoint {
	e := hub
	e.Recovery, e.Enabled = endpoints.RecoveryCatchUp, new(!paused)
	return e
}

func (w *world) live(paused bool) *life {
	l := &life{world: w, behind: NewBehind()}
	l.ctx, l.kill = context.WithCancel(context.Background())
	options := defaults
	options.Behind, options.Attempts, options.MaxEvents, options.BackoffMax = l.behind, 1, 8, 20*time.Second
	options.MaxInFlight = 64 << 10
	l.sender = NewSender(caughtUp(paused), options, l.open, l, zap.NewNop())
	for i := range l.owned {
		o := &event.Ownership{Topic: "twins", Partition: int32(i * event.Lanes / 2)}
		if w.random.IntN(2) == 0 {
			o.Partition = int32(i * event.Lanes) // the same lane for both
		}
		l.owned[i] = o
		w.mu.Lock()
		from := w.committed[i]
		w.mu.Unlock()
		o.Dispatched.Store(from.mark)
		o.Handed.Store(from.mark)
		l.window[i].mark = from.mark
		for _, at := range from.list {
			l.sender.Restore(o, at)
		}
	}
	var reading context.Context
	reading, l.stop = context.WithCancel(l.ctx)
	l.reading.Go(func() { l.dispatch(reading) })
	l.reading.Go(func() { l.read(reading) })
	l.reading.Go(func() { l.commits(reading) })
	return l
}

func (l *life) end() {
	l.kill()
	l.reading.Wait()
	stopped, cancel := context.WithCancel(context.Background())
	cancel()
	_ = l.sender.Close(stopped)
	l.tasks.Wait() // no lane has a letter to store any more
}

func (l *life) index(o *event.Ownership) int { return slices.Index(l.owned[:], o) }

func (l *life) pause(most time.Duration) bool {
	l.world.mu.Lock()
	d := time.Duration(l.random.Int64N(int64(most)))
	l.world.mu.Unlock()
	select {
	case <-time.After(d):
		return true
	case <-l.ctx.Done():
		return false
	}
}

func (w *world) number(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.random.IntN(n)
}

// chunk makes a chunk of the log from an offset on.
func (l *life) chunk(i int, from, to int64, settled func(*event.Chunk)) *event.Chunk {
	o := l.owned[i]
	c := event.NewChunk(o.Topic, o.Partition, int(to-from), int(to-from)*64, settled)
	c.Owned = o
	for at := from; at < to; at++ {
		c.Add(at, 0, 0, nil, make([]byte, 64))
	}
	for n := range c.Records {
		r := &c.Records[n]
		if r.Offset%7 == 3 {
			continue // another endpoint's
		}
		for range 1 + 2*boolInt(r.Offset%13 == 2) { // some are arrays
			c.Events = append(c.Events, event.Event{Chunk: c, Record: r, Index: event.NoIndex, Type: event.SensorChange, Body: r.Value})
		}
	}
	return c
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func pointers(c *event.Chunk) (events []*event.Event) {
	for n := range c.Events {
		events = append(events, &c.Events[n])
	}
	return events
}

// dispatch is the shared reading, partition by partition.
func (l *life) dispatch(ctx context.Context) {
	next := [2]int64{l.window[0].mark, l.window[1].mark}
	for l.pause(300*time.Millisecond) && ctx.Err() == nil {
		i := l.number(2)
		to := min(next[i]+1+int64(l.number(20)), l.topic[i])
		if to == next[i] {
			continue
		}
		p := &pendingChunk{last: to - 1}
		c := l.chunk(i, next[i], to, func(c *event.Chunk) {
			l.settle(i, p)
			c.Free()
		})
		l.mu.Lock()
		l.window[i].open = append(l.window[i].open, p)
		l.mu.Unlock()
		c.Owned.Dispatched.Store(to)
		if l.number(3) == 0 {
			l.pause(50 * time.Millisecond)
		}
		if run := pointers(c); len(run) > 0 {
			if err := l.sender.Enqueue(ctx, c, run); err != nil {
				return
			}
		}
		c.Owned.Handed.Store(to)
		c.Settle(1)
		next[i] = to
	}
}

func (l *life) settle(i int, p *pendingChunk) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.settled = true
	w := &l.window[i]
	for len(w.open) > 0 && w.open[0].settled {
		w.mark, w.open = w.open[0].last+1, w.open[1:]
	}
}

// read is who reads for endpoints that are behind.
func (l *life) read(ctx context.Context) {
	for l.pause(200*time.Millisecond) && ctx.Err() == nil {
		for _, o := range l.behind.Owned() {
			at, ready := l.sender.Next(o, time.Now())
			if !ready {
				continue
			}
			i := l.index(o)
			l.world.mu.Lock()
			start := l.starts[i]
			l.world.mu.Unlock()
			if at < start {
				l.world.mu.Lock()
				for off := at; off < start; off++ {
					l.expired[i][off] = true
				}
				l.world.mu.Unlock()
				l.sender.Skip(o, start)
				continue
			}
			for range l.number(4) {
				to := min(at+1+int64(l.number(20)), l.topic[i])
				if to <= at {
					break
				}
				c := l.chunk(i, at, to, func(c *event.Chunk) { c.Free() })
				taken := l.sender.Give(o, int(o.Partition)%event.Lanes, c, pointers(c), to)
				c.Settle(1)
				if !taken {
					break
				}
				at = to
			}
			l.sender.Join(o)
		}
	}
}

// commits commits, mark first and list after that.
func (l *life) commits(ctx context.Context) {
	var asked [2]struct {
		before bool
		at     uint64
		list   []Position
	}
	for l.pause(400*time.Millisecond) && ctx.Err() == nil {
		i := l.number(2)
		c := commit{mark: l.mark(i)}
		if l.number(3) == 0 {
			l.pause(100 * time.Millisecond)
		}
		// Where nothing to be listed has changed, who commits doesn't ask again.
		if now := l.owned[i].Listed.Load(); !asked[i].before || asked[i].at != now {
			asked[i].before, asked[i].at, asked[i].list = true, now, nil
			if at, listed := l.sender.Position(l.owned[i]); listed {
				asked[i].list = []Position{at}
			}
		}
		c.list = asked[i].list
		l.world.mu.Lock()
		if ctx.Err() == nil {
			l.committed[i] = c
		}
		l.world.mu.Unlock()
	}
}

func (l *life) mark(i int) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.window[i].mark
}

// handOver ends the life in order: what is in flight has a while, then it is committed,
// and what fails after that says nothing.
func (l *life) handOver() {
	l.stop()
	l.reading.Wait()
	l.pause(3 * time.Second)
	for i, o := range l.owned {
		c := commit{mark: l.mark(i)}
		if at, listed := l.sender.Position(o); listed {
			c.list = []Position{at}
		}
		l.world.mu.Lock()
		l.committed[i] = c
		l.world.mu.Unlock()
		l.behind.End(o)
	}
	l.pause(3 * time.Second)
	if n := l.sender.positions.count.Load(); n > 0 || len(l.behind.Owned()) > 0 {
		l.t.Errorf("%d positions are left of ownerships that have ended", n)
	}
	l.end()
}

// seek orders a seek to what was before, or cancels one.
func (l *life) seek() {
	i := l.number(2)
	o := l.owned[i]
	resume := o.Handed.Load()
	at, behind := l.sender.Position(o)
	mark := l.mark(i)
	l.world.mu.Lock()
	// Not beyond what the lane still has: that would be passed over, as was asked for, and
	// come behind what lies beyond it when the seek is cancelled.
	to := l.starts[i] + l.random.Int64N(max(1, min(resume, mark)-l.starts[i]))
	l.world.mu.Unlock()
	if behind && at.Resume >= 0 {
		l.sender.Seek(o, at.Resume, -1)
	} else if !behind || to <= at.Cursor {
		l.sender.Seek(o, to, resume)
	}
}

func (l *life) open(_ endpoints.Endpoint, _ Key) (Sink, error) { return l, nil }

// Send stores what it is sent, unless the service is down. An answer may be lost.
func (l *life) Send(ctx context.Context, events []*event.Event) (int, error) {
	l.world.mu.Lock()
	wait, down := l.hangs, l.down
	n, lost := 1+l.random.IntN(len(events)), l.random.IntN(40) == 0
	for at := range n {
		if poison(events[at]) && at > 0 {
			n = at // it is tried alone
			break
		}
	}
	l.world.mu.Unlock()
	select {
	case <-time.After(wait + time.Millisecond):
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	if down {
		return len(events), errTest
	}
	if poison(events[0]) {
		return 1, refusal(event.Rejected, 0)
	}
	l.world.mu.Lock()
	defer l.world.mu.Unlock()
	for _, ev := range events[:n] {
		i, at := 0, ev.Record.Offset
		if ev.Chunk.Partition > 0 {
			i = 1
		}
		if l.seen[i][at]++; l.seen[i][at] == 1 {
			if at < l.last[i] {
				l.reordered = append(l.reordered, fmt.Sprintf("%d/%d after %d", i, at, l.last[i]))
			}
			l.last[i] = max(l.last[i], at)
		}
	}
	if lost {
		return len(events), errTest
	}
	return n, nil
}

// poison reports whether the service never takes an event.
func poison(ev *event.Event) bool { return ev.Record.Offset%31 == 5 }

// Put stores a dead letter, in its own time.
func (l *life) Put(ev *event.Event, _ event.Reason, _ string, _ *Recipient) {
	i, c, at := 0, ev.Chunk, ev.Record.Offset
	if c.Partition > 0 {
		i = 1
	}
	l.tasks.Go(func() {
		if l.pause(3 * time.Second) {
			l.world.mu.Lock()
			l.seen[i][at]++
			l.world.mu.Unlock()
			c.Settle(1)
		}
	})
}

func (l *life) Close(context.Context) error { return nil }

// Whatever fails, and however often the copy is killed, every event arrives, in order
// by its first arrival, but for what Kafka has no more; and in the end nobody is behind.
func TestPositionsLoseNothing(t *testing.T) {
	seeds := 100
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { positionsLoseNothing(t, uint64(seed)) })
		})
	}
}

// What fails after a partition was lost leaves no position behind in it: nobody would
// ever read for that, and the endpoint would be behind for good.
func TestPositionsOfAnOwnershipThatEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, random: rand.New(rand.NewPCG(1, 1)), topic: [2]int64{400, 300}, hangs: 2 * time.Second}
		for i := range w.seen {
			w.seen[i], w.expired[i], w.last[i] = make(map[int64]int), make(map[int64]bool), -1
		}
		l := w.live(false)
		time.Sleep(3 * time.Second)
		for _, o := range l.owned {
			l.behind.End(o)
		}
		w.mu.Lock()
		w.down = true
		w.mu.Unlock()
		time.Sleep(time.Minute)
		if n, owned := l.sender.positions.count.Load(), l.behind.Owned(); n != 0 || len(owned) != 0 {
			t.Errorf("%d positions, in %d ownerships", n, len(owned))
		}
		if h := l.sender.Health(); !h.BehindSince.IsZero() {
			t.Errorf("it is behind since %v, for %s", h.BehindSince, h.BehindReason)
		}
		check(t, l.sender)
		l.end()
	})
}

func positionsLoseNothing(t *testing.T, seed uint64) {
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 1)), topic: [2]int64{400, 300}}
	for i := range w.seen {
		w.seen[i], w.expired[i], w.last[i] = make(map[int64]int), make(map[int64]bool), -1
	}
	l := w.live(false)
	paused := false
	for range 60 {
		time.Sleep(time.Duration(w.number(3000)) * time.Millisecond)
		what := w.number(10)
		w.mu.Lock()
		switch what {
		case 0, 1:
			w.down = !w.down
		case 2:
			w.hangs = time.Duration(w.random.IntN(3)) * time.Second
		}
		w.mu.Unlock()
		switch what {
		case 3:
			l.sender.Retry()
		case 4:
			paused = !paused
			l.sender.Update(caughtUp(paused))
		case 5:
			l.end()
			l = w.live(paused)
		case 7:
			l.handOver()
			l = w.live(paused)
		case 8:
			l.seek()
		case 6:
			w.mu.Lock()
			if seed%3 == 0 {
				i := w.random.IntN(2)
				w.starts[i] = min(w.committed[i].mark, w.starts[i]+int64(w.random.IntN(30)))
			}
			w.mu.Unlock()
		}
		check(t, l.sender)
	}
	w.mu.Lock()
	w.down, w.hangs = false, 0
	w.mu.Unlock()
	l.sender.Update(caughtUp(false))
	l.sender.Retry()
	time.Sleep(5 * time.Minute)
	check(t, l.sender)
	if n := l.sender.positions.count.Load(); n != 0 {
		for o, pos := range l.sender.positions.of {
			t.Errorf("it is still behind: %+v, dispatched %d", pos, o.Dispatched.Load())
		}
	}
	l.end()
	for i := range w.seen {
		if c := w.committed[i]; c.mark != w.topic[i] || len(c.list) > 0 {
			t.Errorf("partition %d is committed to %+v", i, c)
		}
		for at := range w.topic[i] {
			if w.seen[i][at] == 0 && at%7 != 3 && !w.expired[i][at] {
				t.Errorf("event %d/%d never arrived", i, at)
			}
		}
	}
	if len(w.reordered) > 0 {
		t.Errorf("reordered: %v", w.reordered)
	}
}

func check(t *testing.T, s *Sender) {
	t.Helper()
	c := s.Snapshot().Counts
	if c.Routed != c.Delivered+c.DroppedTotal()+c.Deferred+uint64(c.Pending) {
		t.Errorf("the equation is wrong: %+v", c)
	}
}
