package sinks

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
	"twinegress/sinks/breaker"
)

// parted is a service with parts, some of which are down. The sinks' errors say
// how many there are, unless noParts.
type parted struct {
	parts   int
	noParts bool
	hangs   bool // what is down says so by a time-out

	mu   sync.Mutex
	down map[int]bool
}

func newParted(parts int, down ...int) *parted {
	p := &parted{parts: parts}
	p.set(down...)
	return p
}

// set changes what is down.
func (p *parted) set(down ...int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = make(map[int]bool)
	for _, part := range down {
		p.down[part] = true
	}
}

// all is every part.
func (p *parted) all() (parts []int) {
	for i := range p.parts {
		parts = append(parts, i)
	}
	return parts
}

// respond takes what is for the first event's part, in a millisecond.
func (p *parted) respond(ctx context.Context, _ string, events []*event.Event) (int, error) {
	part := int(events[0].Chunk.Partition) % p.parts
	n := ofPart(events, p.parts)
	<-time.After(ms)
	p.mu.Lock()
	down := p.down[part]
	p.mu.Unlock()
	if !down {
		return n, nil
	}
	if p.hangs {
		<-ctx.Done()
	}
	e := &Error{Reason: event.Unreachable, Err: errTest}
	if !p.noParts {
		e.Parts = p.parts
	}
	return n, e
}

func (h *harness) of(p *parted) *harness {
	h.service.respond = p.respond
	return h
}

// withoutJitter makes waits exact.
func (h *harness) withoutJitter() {
	h.ledger.backoff.init(func() *breaker.Breaker {
		return breaker.New(h.options.BackoffInitial, h.options.BackoffMax, func() float64 { return 0 })
	})
}

// feed puts an event in each partition, in turn, at every interval for that long.
func (h *harness) feed(every, during time.Duration, partitions ...int32) {
	for end := time.Now().Add(during); time.Now().Before(end); advance(every) {
		for _, p := range partitions {
			h.put(p, 1)
		}
	}
}

// failures returns how many sends of some partitions failed.
func (h *harness) failures(of func(partition int32) bool) (failed int) {
	for _, c := range h.calls() {
		if c.err != nil && of(c.part) {
			failed++
		}
	}
	return failed
}

func (h *harness) dropped() uint64 {
	h.t.Helper()
	snap := h.snapshot()
	return snap.Counts.DroppedTotal()
}

func count(n int32) (partitions []int32) {
	for i := range n {
		partitions = append(partitions, i)
	}
	return partitions
}

// One part is down for an hour. It alone backs off, longer and longer; the others
// don't notice; when it is back, its next events arrive.
func TestOnePartBacksOff(t *testing.T) {
	for name, test := range map[string]struct {
		parts int
		kafka int32 // partitions, in 8 lanes
		lanes int   // of the one that is down: each may find it out by itself
		hangs bool
	}{
		"a lane to each part":              {parts: 8, kafka: 8, lanes: 1},
		"two lanes to each part":           {parts: 4, kafka: 8, lanes: 2},
		"two parts to each lane":           {parts: 16, kafka: 16, lanes: 1},
		"all lanes to each part":           {parts: 3, kafka: 24, lanes: 8},
		"two parts, and half of the lanes": {parts: 2, kafka: 4, lanes: 2},
		"a part that hangs":                {parts: 8, kafka: 8, lanes: 1, hangs: true},
		"a part that hangs, in all lanes":  {parts: 3, kafka: 24, lanes: 8, hangs: true},
		"a part that hangs, in two lanes":  {parts: 4, kafka: 8, lanes: 2, hangs: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				service := newParted(test.parts)
				service.hangs = test.hangs
				h := newHarness(t, hub, defaults).of(service)
				isDown := func(partition int32) bool { return int(partition)%test.parts == 1 }
				h.feed(time.Second, 10*time.Second, count(test.kafka)...)
				h.expect(counts{"delivered": 10 * int(test.kafka)})

				service.set(1)
				h.feed(4*time.Second, time.Hour, count(test.kafka)...)
				advance(defaults.Timeout) // a try that hangs ends, and what is behind it in its lane goes out
				snap := h.snapshot()
				if snap.State != StateDegraded || !slices.Equal(snap.PartitionsBackingOff, []int{1}) || snap.Reason != "unreachable" ||
					!strings.Contains(snap.LastError, errTest.Error()) || time.Until(snap.BackOffUntil) > 30*time.Minute {
					t.Errorf("after an hour: %+v", snap.Health)
				}
				// Waits of 1 s, 2 s, … 17 min, less jitter, and then of half an hour.
				tries := h.failures(isDown)
				if !test.hangs {
					tries /= defaults.Attempts // a time-out is no more than one
				}
				if most := 14 + test.lanes; tries < 10 || tries > most {
					t.Errorf("it was tried %d times in an hour, want at most %d", tries, most)
				}
				for p := range test.kafka {
					if want := h.next[p]; !isDown(p) && int64(len(h.service.stored[p])) != want {
						t.Errorf("partition %d: %d of %d events are stored", p, len(h.service.stored[p]), want)
					}
				}
				if n := h.failures(func(p int32) bool { return !isDown(p) }); n != 0 {
					t.Errorf("%d sends to others failed", n)
				}

				service.set()
				advance(time.Until(h.snapshot().BackOffUntil))
				before := h.dropped()
				for p := range test.kafka {
					h.put(p, 1)
					advance(10 * ms)
				}
				snap = h.snapshot()
				if snap.State != StateReady || snap.LastError == "" || snap.Reason != "" || !snap.BackOffUntil.IsZero() ||
					snap.PartitionsBackingOff != nil || snap.Counts.DroppedTotal() != before {
					t.Errorf("when it is back: %+v, %d more dropped", snap.Health, snap.Counts.DroppedTotal()-before)
				}
				service.set(1)
				h.put(1, 1)
				advance(11 * time.Second)
				h.put(0, 1)
				advance(ms)
				if wait := time.Until(h.snapshot().BackOffUntil); wait > time.Second {
					t.Errorf("down again: the wait is %v, want the shortest", wait)
				}
				h.inOrder()
				h.finish()
			})
		})
	}
}

// When all parts are down, what is sent is as if there were none, but that each part
// may be tried once. That all is down is known when the second one fails.
func TestAllPartsDown(t *testing.T) {
	for name, test := range map[string]struct {
		hangs bool
		apart time.Duration // between the partitions' events
		more  int           // batches that are sent with parts alone
	}{
		"all at once":              {},
		"all at once, and hanging": {hangs: true},
		"one after the other":      {apart: time.Second, more: 6},
		"hanging one by one":       {hangs: true, apart: 11 * time.Second, more: 6},
	} {
		t.Run(name, func(t *testing.T) {
			sends := make(map[bool]int)
			for _, noParts := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					service := newParted(7)
					service.hangs, service.noParts = test.hangs, noParts
					h := newHarness(t, hub, defaults).of(service)
					h.withoutJitter()
					for p := range int32(7) {
						h.put(p, 1)
					}
					advance(time.Minute)
					service.set(service.all()...)
					for end := time.Now().Add(time.Hour); time.Now().Before(end); {
						for p := range int32(7) {
							h.put(p, 1)
							if test.apart > 0 {
								advance(test.apart)
							}
						}
						advance(4 * time.Second)
					}
					if snap := h.snapshot(); snap.State != StateBackingOff && snap.State != StateProbing || !strings.Contains(snap.LastError, errTest.Error()) {
						t.Errorf("%+v", snap.Health)
					}
					sends[noParts] = len(h.calls())
					service.set()
					h.feed(10*time.Second, 31*time.Minute, count(7)...)
					before := h.snapshot()
					h.feed(time.Second, time.Minute, count(7)...)
					if after := h.snapshot(); after.State != StateReady || after.Counts.Delivered != before.Counts.Delivered+60*7 {
						t.Errorf("in the minute after it is back: %+v, delivered %d", after.Health, after.Counts.Delivered-before.Counts.Delivered)
					}
					h.finish()
				})
			}
			most := sends[true] + test.more
			if !test.hangs {
				most = sends[true] + test.more*defaults.Attempts
			}
			if sends[false] < sends[true] || sends[false] > most {
				t.Errorf("%d sends with parts, %d without", sends[false], sends[true])
			}
		})
	}
}

// Where only one part has events, it is the endpoint as far as anybody knows: all
// is as if there were no parts.
func TestOnlyOnePartHasEvents(t *testing.T) {
	type moment struct {
		state           State
		reason, lastErr string
		until           time.Time
		counts          string
	}
	var seen [2][]moment
	for i, noParts := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			service := newParted(4, 2)
			service.noParts = noParts
			h := newHarness(t, hub, defaults).of(service)
			h.withoutJitter()
			for at := range 100 {
				if at == 70 {
					service.set()
				}
				h.put(2, 1)
				advance(350 * ms)
				h.put(6, 1)
				advance(time.Duration(at) * time.Second)
				snap := h.snapshot()
				lastErr, _, _ := strings.Cut(snap.LastError, " (partition 2)")
				seen[i] = append(seen[i], moment{snap.State, snap.Reason, lastErr, snap.BackOffUntil, fmt.Sprint(h.counted())})
			}
			h.finish()
		})
	}
	if !slices.Equal(seen[0], seen[1]) {
		for i := range seen[0] {
			if seen[0][i] != seen[1][i] {
				t.Fatalf("the first difference is at %d:\n%+v without parts\n%+v with", i, seen[0][i], seen[1][i])
			}
		}
	}
}
