package sinks

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// behindHarness is a harness of a sender that leaves the shared reading, with one
// ownership, and who reads for it.
type behindHarness struct {
	*harness
	behind *Behind
	owned  *event.Ownership
	lines  *observer.ObservedLogs
	onLine func(zapcore.Entry)
}

func newBehindHarness(t *testing.T, endpoint endpoints.Endpoint, options Options) *behindHarness {
	t.Helper()
	b := &behindHarness{behind: NewBehind(), owned: &event.Ownership{Topic: "twins"}}
	options.Behind = b.behind
	b.harness = newHarness(t, endpoint, options)
	core, lines := observer.New(zap.InfoLevel)
	b.lines = lines
	b.Sender = NewSender(endpoint, options, b.service.open, &b.letters, zap.New(core, zap.Hooks(func(e zapcore.Entry) error {
		if b.onLine != nil {
			b.onLine(e)
		}
		return nil
	})))
	return b
}

// shared dispatches n events of the next offsets.
func (b *behindHarness) shared(n int) {
	b.t.Helper()
	c := b.chunk(b.owned.Partition, n, 10)
	c.Owned = b.owned
	b.owned.Dispatched.Store(c.Last + 1)
	if err := b.dispatch(b.t.Context(), c); err != nil {
		b.t.Errorf("dispatch: %v", err)
	}
	b.owned.Handed.Store(b.owned.Dispatched.Load())
}

// give is who reads for it: it gives the offsets from one to before another.
func (b *behindHarness) give(from, to int64) {
	b.t.Helper()
	if at, ready := b.Next(b.owned, time.Now()); at != from || !ready {
		b.t.Errorf("next is %d, %t, want %d", at, ready, from)
	}
	c := event.NewChunk("twins", b.owned.Partition, int(to-from), 10, (*event.Chunk).Free)
	for at := from; at < to; at++ {
		c.Add(at, 0, 0, nil, []byte("0123456789"))
	}
	for i := range c.Records {
		c.Events = append(c.Events, event.Event{Chunk: c, Record: &c.Records[i], Index: event.NoIndex, Type: event.SensorChange, Body: c.Records[i].Value})
	}
	if !b.Give(b.owned, 0, c, pointers(c), to) {
		b.t.Errorf("%d to %d is not taken", from, to)
	}
	c.Settle(1)
}

func (b *behindHarness) expectCursor(want int64) {
	b.t.Helper()
	if at, is := b.Position(b.owned); !is || at.Cursor != want {
		b.t.Errorf("position %+v, %t, want %d", at, is, want)
	}
}

func (b *behindHarness) expectStored(want ...int64) {
	b.t.Helper()
	if got := b.service.stored[b.owned.Partition]; !slices.Equal(got, want) {
		b.t.Errorf("arrived %v, want %v", got, want)
	}
}

// An ownership ends while a send of it hangs, and fails later: what has no outcome is
// its next owner's. Nothing stays behind of it, and nobody says that all were caught up.
func TestOwnershipEndsAmidSend(t *testing.T) {
	for name, tt := range map[string]struct {
		before func(*behindHarness) // the hanging send
		after  func(*behindHarness) // once the ownership has ended
	}{
		"live":       {before: func(b *behindHarness) { b.shared(8) }},
		"live, more": {before: func(b *behindHarness) { b.shared(8) }, after: func(b *behindHarness) { advance(11 * time.Second); b.shared(8) }},
		"behind": {before: func(b *behindHarness) {
			b.Seek(b.owned, 0, -1)
			b.give(0, 8)
		}},
		"restored too late": {before: func(b *behindHarness) { b.shared(8) }, after: func(b *behindHarness) { b.Restore(b.owned, Position{Cursor: 5, Resume: -1}) }},
		"sought too late":   {before: func(b *behindHarness) { b.shared(8) }, after: func(b *behindHarness) { b.Seek(b.owned, 5, 8) }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				options := defaults
				options.Attempts, options.MaxEvents, options.KeepDropped = 1, 4, true
				b := newBehindHarness(t, caughtUp(false), options)
				b.service.respond = script(errHang)
				tt.before(b)
				advance(time.Second)
				b.behind.End(b.owned)
				if tt.after != nil {
					tt.after(b)
				}
				advance(time.Minute)
				if owned := b.behind.Owned(); len(owned) > 0 || b.positions.count.Load() > 0 || !b.Health().BehindSince.IsZero() {
					t.Errorf("positions are left: %v, %+v", owned, b.Health())
				}
				if c := b.snapshot().Counts; c.DroppedTotal() > 0 || c.Pending > 0 || c.Deferred == 0 || len(b.letters.got) > 0 {
					t.Errorf("dropped %d, pending %d, deferred %d, %d dead letters", c.DroppedTotal(), c.Pending, c.Deferred, len(b.letters.got))
				}
				if n := b.lines.FilterMessage("the endpoint has caught up").Len(); n > 0 {
					t.Error("it is said to have caught up")
				}
				b.finish()
			})
		})
	}
}

// An endpoint that is removed while it is behind has not caught up.
func TestRemovedWhileBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBehindHarness(t, caughtUp(false), defaults)
		b.Seek(b.owned, 0, -1)
		if err := b.Remove(t.Context()); err != nil {
			t.Error(err)
		}
		if n := b.lines.FilterMessage("the endpoint has caught up").Len(); n > 0 || len(b.behind.Owned()) > 0 {
			t.Errorf("said %d times that it has caught up; %v", n, b.behind.Owned())
		}
	})
}

// What the lane has of a partition that the endpoint has left is not sent, though the
// service works again: the events before are yet to come.
func TestLaneOfLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.Attempts, options.MaxEvents = 1, 4
		b := newBehindHarness(t, caughtUp(false), options)
		b.service.respond = script(errTest)
		b.onLine = func(e zapcore.Entry) { // before the lane's next send
			if strings.HasPrefix(e.Message, "endpoint backs off") {
				b.Retry()
			}
		}
		b.shared(8)
		advance(time.Second)
		b.expectStored()
		b.expectCursor(0)
		b.give(0, 8)
		advance(time.Second)
		b.expectStored(0, 1, 2, 3, 4, 5, 6, 7)
		b.finish()
	})
}

// Nor is what the lane has sent once the endpoint is not enabled.
func TestLaneOfPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.MaxEvents = 4
		b := newBehindHarness(t, caughtUp(false), options)
		b.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			time.Sleep(time.Second)
			return len(events), nil
		}
		b.shared(8)
		advance(time.Second / 2)
		b.Update(caughtUp(true))
		advance(time.Minute)
		b.expectStored(0, 1, 2, 3)
		b.expectCursor(4)
		b.Update(caughtUp(false))
		b.give(4, 8)
		advance(time.Minute)
		b.expectStored(0, 1, 2, 3, 4, 5, 6, 7)
		b.finish()
	})
}

// An outcome of an earlier reading, such as of a dead letter that is stored late, says
// nothing of what is given by now.
func TestOutcomeOfEarlierReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.Attempts, options.MaxEvents, options.BackoffInitial = 1, 4, 100*time.Millisecond
		b := newBehindHarness(t, caughtUp(false), options)
		b.owned.Dispatched.Store(100)
		b.letters.late = true
		b.service.respond = script(refusal(event.Rejected, 0), errTest, errHang)
		b.Seek(b.owned, 0, -1)
		b.give(0, 1)
		advance(time.Second) // it is refused, and its dead letter isn't stored
		b.give(1, 4)
		advance(time.Second) // this fails
		b.give(0, 4)
		advance(time.Second) // this hangs
		b.letters.storeAll()
		b.expectCursor(0)
		advance(time.Minute) // and fails, too
		b.expectCursor(0)
		b.give(0, 4)
		advance(time.Second)
		b.expectStored(0, 1, 2, 3)
		b.expectCursor(4)
		b.finish()
	})
}

// Two endpoints refuse events of one chunk that both got of the shared reading: what an
// endpoint notes in a chunk of its own it must not in that one. (Only -race sees it.)
func TestRefusedByTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBehindHarness(t, caughtUp(false), defaults)
		other := newBehindHarness(t, caughtUp(false), defaults)
		b.service.respond, other.service.respond = script(refusal(event.Rejected, 0)), script(refusal(event.Rejected, 0))
		c := b.chunk(0, 1, 10)
		c.Owned = b.owned
		for _, s := range []*Sender{b.Sender, other.Sender} {
			if err := s.Enqueue(t.Context(), c, pointers(c)); err != nil {
				t.Error(err)
			}
		}
		c.Settle(1)
		advance(time.Second)
		b.finish()
		other.finish()
	})
}

// A seek is cancelled while the lane still has events from before it: they are read
// again, too.
func TestSeekIsCancelledAmidSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.Attempts = 1
		b := newBehindHarness(t, caughtUp(false), options)
		b.service.respond = script(errHang)
		b.shared(8)
		advance(time.Second)
		b.Seek(b.owned, 100, b.owned.Handed.Load())
		b.Seek(b.owned, 8, -1)
		advance(time.Minute)
		b.expectCursor(0)
		b.give(0, 8)
		advance(time.Second)
		b.expectStored(0, 1, 2, 3, 4, 5, 6, 7)
		b.finish()
	})
}

// A position that is restored, and where it goes back to, is no further than what the
// new owner begins to read for all.
func TestRestoredBeyondTheMark(t *testing.T) {
	b := newBehindHarness(t, caughtUp(false), defaults)
	b.owned.Dispatched.Store(50)
	for _, tt := range [][2]Position{
		{{Cursor: 60, Resume: -1}, {Cursor: 50, Resume: -1}},
		{{Cursor: 10, Resume: 70}, {Cursor: 10, Resume: 50}},
		{{Cursor: 10, Resume: 50}, {Cursor: 10, Resume: 50}},
		{{Cursor: 10, Resume: 40}, {Cursor: 10, Resume: 40}},
	} {
		o := &event.Ownership{Topic: "twins"}
		o.Dispatched.Store(50)
		b.Restore(o, tt[0])
		if at, is := b.Position(o); !is || at != tt[1] {
			t.Errorf("%+v is restored as %+v", tt[0], at)
		}
	}
}

// An endpoint catches up on a chunk that is being dispatched: others have it already. It
// isn't sent once more when the endpoint's turn comes.
func TestJoinAmidDispatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBehindHarness(t, caughtUp(false), defaults)
		b.owned.Dispatched.Store(8)
		b.Seek(b.owned, 0, -1)
		b.give(0, 8)
		advance(time.Second)
		if !b.Join(b.owned) {
			t.Error("it doesn't join")
		}
		b.Next(b.owned, time.Now())
		b.shared(8)
		advance(time.Second)
		b.expectStored(0, 1, 2, 3, 4, 5, 6, 7)
		if b.positions.count.Load() > 0 {
			t.Error("it has a position still")
		}
		b.finish()
	})
}

// An endpoint leaves while the only batch of its lane is under way: whoever reads for it
// is told once that is through.
func TestWakeAfterTheLastBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.MaxInFlight = event.Lanes // a chunk a lane
		b := newBehindHarness(t, caughtUp(false), options)
		b.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			time.Sleep(time.Second)
			return len(events), nil
		}
		b.shared(4)
		advance(time.Second / 2)
		b.shared(4)
		<-b.behind.Changed()
		if _, ready := b.Next(b.owned, time.Now()); ready {
			t.Error("what is under way would be overtaken")
		}
		advance(time.Minute)
		select {
		case <-b.behind.Changed():
		default:
			t.Error("nobody says that the lane is empty")
		}
		b.give(4, 8)
		advance(time.Minute)
		b.expectStored(0, 1, 2, 3, 4, 5, 6, 7)
		b.finish()
	})
}

// Events wait for room in the lane of an endpoint that doesn't leave by itself. It is
// sought meanwhile, and the reader has given them before there is room: they don't come
// again behind what the reader gave after them.
func TestGivenWhileItWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.MaxEvents = 1
		drops := hub
		drops.SeekTo, drops.SeekAt = endpoints.Earliest, "2026-01-01T00:00:00Z"
		b := newBehindHarness(t, drops, options)
		b.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			time.Sleep(time.Second)
			return len(events), nil
		}
		other := &event.Ownership{Topic: "twins", Partition: event.Lanes} // of the same lane
		full := b.chunk(other.Partition, laneBatches, 10)
		full.Owned, full.Lane = other, 0
		if err := b.dispatch(t.Context(), full); err != nil {
			t.Error(err)
		}
		var dispatching sync.WaitGroup
		dispatching.Go(func() { b.shared(2) })
		synctest.Wait()
		b.Seek(b.owned, 0, 0)
		b.positions.mu.Lock()
		pos := b.positions.of[b.owned]
		pos.begin(1)
		pos.pass(2, time.Time{}) // as if they were given, and delivered
		b.positions.mu.Unlock()
		if !b.Join(b.owned) {
			t.Error("it doesn't join")
		}
		dispatching.Wait()
		advance(time.Minute)
		b.expectStored()
		if c := b.snapshot().Counts; c.Deferred != 2 || c.Pending != 0 {
			t.Errorf("deferred %d, pending %d", c.Deferred, c.Pending)
		}
		b.finish()
	})
}

// Whoever seeks has looked at the position before, and it may have changed since.
func TestSeekOfWhatHasChanged(t *testing.T) {
	for name, tt := range map[string]struct {
		at         *Position // what it is by now
		to, resume int64
		want       Position
	}{
		"it was live":                         {nil, 3, 8, Position{Cursor: 3, Resume: 8}},
		"it has left since":                   {&Position{Cursor: 6, Resume: -1}, 3, 8, Position{Cursor: 3, Resume: 6}},
		"it is behind further on":             {&Position{Cursor: 9, Resume: -1}, 3, 8, Position{Cursor: 3, Resume: 8}},
		"another seek":                        {&Position{Cursor: 2, Resume: 7}, 3, 8, Position{Cursor: 3, Resume: 7}},
		"cancelled":                           {&Position{Cursor: 2, Resume: 7}, 7, -1, Position{Cursor: 7, Resume: -1}},
		"cancelled, and it goes further back": {&Position{Cursor: 2, Resume: 5}, 7, -1, Position{Cursor: 5, Resume: -1}},
		"to the start of what is left of it":  {&Position{Cursor: 9, Resume: -1}, 3, -1, Position{Cursor: 3, Resume: -1}},
	} {
		b := newBehindHarness(t, caughtUp(false), defaults)
		b.owned.Dispatched.Store(20)
		if tt.at != nil {
			b.Restore(b.owned, *tt.at)
		}
		b.Seek(b.owned, tt.to, tt.resume)
		got, is := b.Position(b.owned)
		if got.Since = (time.Time{}); !is || got != tt.want {
			t.Errorf("%s: %+v, %t, want %+v", name, got, is, tt.want)
		}
	}
}
