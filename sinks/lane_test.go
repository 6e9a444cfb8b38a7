package sinks

import (
	"context"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/event"
)

const ms = time.Millisecond

// What makes a batch: each case puts chunks at its times and wants sends at
// theirs.
func TestBatching(t *testing.T) {
	type put struct {
		at       time.Duration
		n, bytes int
	}
	cases := map[string]struct {
		puts  []put
		takes int           // of each Send; 0 is all
		delay time.Duration // of each Send
		want  []call
	}{
		"count: at once when full":                 {puts: []put{{0, 10, 1}}, want: []call{sent(0, 10)}},
		"count: full by two chunks":                {puts: []put{{0, 6, 1}, {2 * ms, 4, 1}}, want: []call{sent(2*ms, 10)}},
		"count: what is left over lingers no more": {puts: []put{{0, 25, 1}}, want: []call{sent(0, 10), sent(0, 10), sent(0, 5)}},
		"bytes":                          {puts: []put{{0, 1, 600 << 10}, {1 * ms, 1, 600 << 10}}, want: []call{sent(1*ms, 2)}},
		"linger":                         {puts: []put{{0, 1, 1}}, want: []call{sent(5*ms, 1)}},
		"linger counts from the first":   {puts: []put{{0, 1, 1}, {4 * ms, 1, 1}}, want: []call{sent(5*ms, 2)}},
		"linger anew for the next batch": {puts: []put{{0, 1, 1}, {6 * ms, 1, 1}}, want: []call{sent(5*ms, 1), sent(11*ms, 1)}},
		"what waited behind a send goes at once": {
			puts: []put{{0, 10, 1}, {3 * ms, 1, 1}, {19 * ms, 1, 1}}, delay: 20 * ms,
			want: []call{sent(0, 10), sent(20*ms, 2)},
		},
		"what came late behind a send lingers from its coming": {
			puts: []put{{0, 10, 1}, {18 * ms, 1, 1}}, delay: 20 * ms,
			want: []call{sent(0, 10), sent(23*ms, 1)},
		},
		"a Send that takes a part is called again at once": {puts: []put{{0, 10, 1}}, takes: 4, want: []call{sent(0, 4), sent(0, 4), sent(0, 2)}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				options := defaults
				options.MaxEvents = 10
				h := newHarness(t, hub, options)
				h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
					if test.delay > 0 {
						<-time.After(test.delay)
					}
					if test.takes > 0 {
						return min(test.takes, len(events)), nil
					}
					return len(events), nil
				}
				for _, p := range test.puts {
					advance(p.at - time.Since(h.start))
					if err := h.dispatch(t.Context(), h.chunk(3, p.n, p.bytes)); err != nil {
						t.Fatal(err)
					}
				}
				advance(time.Second)
				h.expectCalls(test.want...)
				h.inOrder()
				h.finish()
			})
		})
	}
}

// What lingers is sent at once when the sender is closed.
func TestCloseEndsLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.Linger = time.Hour
		h := newHarness(t, hub, options)
		h.put(0, 2)
		synctest.Wait()
		h.finish()
		h.expectCalls(sent(0, 2))
	})
}

// A lane has one send in flight and keeps its partitions' order; lanes don't
// wait for each other.
func TestLanesKeepOrderInParallel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			<-time.After(rand.N(20 * ms))
			return 1 + rand.IntN(len(events)), nil
		}
		for range 500 {
			h.put(rand.Int32N(2*event.Lanes), 1+rand.IntN(20))
		}
		advance(time.Minute)
		h.inOrder()
		if h.service.peak != event.Lanes {
			t.Errorf("at most %d sends were in flight at a time, want %d", h.service.peak, event.Lanes)
		}
		for p, next := range h.next {
			if got := len(h.service.stored[p]); got != int(next) {
				t.Errorf("partition %d: %d events stored of %d", p, got, next)
			}
		}
		h.finish()
	})
}

// Partitions that share a lane alternate by the event, and the service takes those
// of one partition at a time: sends are no smaller for it, and neither partition
// waits for the other's end.
func TestPartitionsOfALaneShareSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
			<-time.After(20 * ms)
			n := slices.IndexFunc(events, func(ev *event.Event) bool { return ev.Chunk.Partition != events[0].Chunk.Partition })
			if n < 0 {
				n = len(events)
			}
			return n, nil
		}
		for range 500 {
			h.put(0, 1)
			h.put(event.Lanes, 1)
			advance(ms)
		}
		advance(50 * ms)
		h.inOrder()
		h.expect(counts{"delivered": 1000})
		last := time.Duration(0)
		for i, c := range h.calls() {
			if c.at-last > 21*ms {
				t.Errorf("send %d went out %v after the one before", i, c.at-last)
			}
			if i > 1 && len(c.offsets) < 18 && c.at < 500*ms {
				t.Errorf("send %d has %d events of partition %d", i, len(c.offsets), c.part)
			}
			last = c.at
		}
		h.finish()
	})
}

// k bad events among n cost O(k log n) sends; the others arrive, in order.
func TestPoison(t *testing.T) {
	cases := map[string]struct {
		n   int
		bad []int64
	}{
		"one of one":           {1, []int64{0}},
		"the first":            {1000, []int64{0}},
		"the last":             {1000, []int64{999}},
		"one in the middle":    {1000, []int64{531}},
		"both ends":            {1000, []int64{0, 999}},
		"neighbours":           {1000, []int64{498, 499, 500, 501, 502}},
		"scattered":            {2000, []int64{7, 200, 201, 1000, 1111, 1999}},
		"all":                  {16, []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}},
		"two, all but one bad": {3, []int64{0, 2}},
	}
	for _, reason := range []event.Reason{event.Rejected, event.TooLarge} {
		for name, test := range cases {
			t.Run(fmt.Sprint(reason, "/", name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					options := defaults
					options.MaxEvents = test.n
					h := newHarness(t, hub, options)
					h.service.respond = func(_ context.Context, _ string, events []*event.Event) (int, error) {
						for _, ev := range events {
							if slices.Contains(test.bad, ev.Record.Offset) {
								return len(events), refusal(reason, 0)
							}
						}
						return len(events), nil
					}
					h.put(0, test.n)
					advance(time.Second)

					k := len(test.bad)
					if limit := 1 + k*2*(1+bits.Len(uint(test.n))); len(h.calls()) > limit {
						t.Errorf("%d sends for %d bad of %d, want at most %d", len(h.calls()), k, test.n, limit)
					}
					h.inOrder()
					want := counts{reason.String(): k}
					if test.n > k {
						want["delivered"] = test.n - k
					}
					h.expect(want)
					var bad []int64
					for _, l := range h.letters.got {
						if l.reason != reason || l.detail != errTest.Error() {
							t.Errorf("dead letter %+v", l)
						}
						bad = append(bad, l.offset)
					}
					if !slices.Equal(bad, test.bad) {
						t.Errorf("dead letters of %v, want %v", bad, test.bad)
					}
					if s := h.snapshot().State; s != StateReady {
						t.Errorf("the state is %s: a bad event must not move the breaker", s)
					}
					h.finish()
				})
			})
		}
	}
}

// A lane's bytes are given back: it doesn't fill up over time.
func TestLaneBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		for range 12 {
			if err := h.dispatch(t.Context(), h.chunk(0, 1, 1<<20)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		h.expect(counts{"delivered": 12})
		l := h.queue.lanes[0].Load()
		if l.count != 0 || l.bytes != 0 {
			t.Errorf("an empty lane has %d events of %d bytes", l.count, l.bytes)
		}
		h.service.respond = func(ctx context.Context, _ string, events []*event.Event) (int, error) {
			<-time.After(time.Second)
			return len(events), nil
		}
		begun := time.Now()
		for range 12 { // 8 MiB and one chunk fit, the others wait for a send each
			if err := h.dispatch(t.Context(), h.chunk(0, 1, 1<<20)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if took := time.Since(begun); took < time.Second {
			t.Errorf("12 MiB were let in within %v", took)
		}
		h.finish()
	})
}

// Enqueue and the outcome are per event: neither allocates.
func TestEnqueueAllocatesNothing(t *testing.T) {
	h := newHarness(t, hub, defaults)
	c := h.chunk(0, 256, 100)
	l := newLane(&h.queue) // without a goroutine: the test drains it
	h.queue.lanes[0].Store(l)
	slots, senders := []Slot{0}, []*Sender{h.Sender}
	allocs := testing.AllocsPerRun(200, func() {
		for i := range c.Events {
			h.fanout.Add(&c.Events[i], slots)
		}
		h.fanout.Group()
		if err := h.fanout.Enqueue(t.Context(), c, senders); err != nil {
			t.Fatal(err)
		}
		h.fanout.Reset()
		l.drain()
		bytes := bytesOf(l.work)
		h.outcomes.deliver(l.work)
		l.consume(len(l.work), bytes)
	})
	if allocs != 0 {
		t.Errorf("%v allocations for 256 events, want none", allocs)
	}
	c.Settle(1)
	h.finish()
}

// consume must not keep events alive: their chunks are reused.
func TestConsumeForgets(t *testing.T) {
	h := newHarness(t, hub, defaults)
	c := h.chunk(0, 4, 10)
	l := newLane(&h.queue)
	l.work = []*event.Event{&c.Events[0], &c.Events[1], &c.Events[2]}
	l.consume(2, 20)
	if all := l.work[:3]; all[0] != &c.Events[2] || all[1] != nil || all[2] != nil {
		t.Errorf("after two were consumed: %v", all)
	}
	c.Settle(1)
}

// discarding is a sender whose service takes everything at once, and a run for it.
func discarding(size int) (*Sender, *event.Chunk, []*event.Event) {
	s := NewSender(hub, Options{
		Linger: 5 * ms, MaxEvents: 2000, BackoffInitial: time.Second, BackoffMax: time.Minute,
		Timeout: time.Second, Attempts: 1, ThrottleLimit: time.Second,
	}, discard, nil, zap.NewNop())
	c := event.NewChunk("twins", 0, 1, 0, func(*event.Chunk) {})
	c.Add(0, time.Now().UnixMilli(), 0, nil, nil)
	run := make([]*event.Event, size)
	for i := range run {
		run[i] = &event.Event{Chunk: c, Record: &c.Records[0], Body: make([]byte, 500), Type: event.SensorChange}
	}
	return s, c, run
}

// BenchmarkLane is per event: from Enqueue to the outcome.
func BenchmarkLane(b *testing.B) {
	for _, size := range []int{1, 32, 256} {
		b.Run(fmt.Sprint("chunk", size), func(b *testing.B) {
			s, c, run := discarding(size)
			b.ReportAllocs()
			b.SetBytes(500)
			for n := 0; n < b.N; n += size {
				if err := s.Enqueue(context.Background(), c, run); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkDeliver is per batch: through all layers of the delivery.
func BenchmarkDeliver(b *testing.B) {
	s, c, batch := discarding(100)
	b.ReportAllocs()
	for b.Loop() {
		c.Hold(len(batch))
		s.queue.deliver(context.Background(), batch)
	}
}
