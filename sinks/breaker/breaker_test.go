package breaker

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func none() float64 { return 0 }

// fail opens the breaker once more at now.
func fail(t *testing.T, b *Breaker, now time.Time, atLeast time.Duration) time.Time {
	t.Helper()
	p, ok := b.Acquire(now)
	if !ok {
		t.Fatalf("no permit at %v", now)
	}
	retryAt, opened := b.Failure(p, now, atLeast)
	if !opened {
		t.Fatal("the failure did not open the breaker")
	}
	return retryAt
}

// An endpoint that is dead for a day, asked as often as can be.
func TestDeadForADay(t *testing.T) {
	for name, jitter := range map[string]func() float64{"without jitter": none, "with jitter": rand.New(rand.NewPCG(1, 2)).Float64} {
		t.Run(name, func(t *testing.T) {
			b := New(time.Second, 30*time.Minute, jitter)
			want := time.Second
			waits := 0
			for now := start; now.Before(start.Add(24 * time.Hour)); waits++ {
				retryAt := fail(t, b, now, 0)
				wait := retryAt.Sub(now)
				if wait > want || wait < want*4/5 {
					t.Fatalf("wait %d is %v, want at most %v and at least 4/5 of it", waits, wait, want)
				}
				if !b.Blocked(retryAt.Add(-1)) || b.Blocked(retryAt) {
					t.Fatal("Blocked does not end with the wait")
				}
				if _, ok := b.Acquire(retryAt.Add(-1)); ok {
					t.Fatal("a permit before the wait was over")
				}
				want = min(2*want, 30*time.Minute)
				now = retryAt
			}
			if waits < 11+46 {
				t.Errorf("%d waits in a day", waits)
			}
			p, _ := b.Acquire(start.Add(25 * time.Hour))
			if !p.Probe || !b.Success(p) {
				t.Fatal("the probe's success did not close the breaker")
			}
			if wait := fail(t, b, start, 0).Sub(start); wait > time.Second {
				t.Errorf("after a success the wait is %v, want the initial one again", wait)
			}
		})
	}
}

func TestOneProbe(t *testing.T) {
	b := New(time.Second, time.Minute, none)
	retryAt := fail(t, b, start, 0)
	for round := range 50 {
		var got atomic.Int32
		var probe Permit
		var lanes sync.WaitGroup
		for range 16 {
			lanes.Go(func() {
				if p, ok := b.Acquire(retryAt); ok {
					got.Add(1)
					probe = p
				}
			})
		}
		lanes.Wait()
		if got.Load() != 1 {
			t.Fatalf("%d probes in round %d", got.Load(), round)
		}
		if !b.Blocked(retryAt.Add(time.Hour)) {
			t.Fatal("not blocked while probing")
		}
		retryAt, _ = b.Failure(probe, retryAt, 0)
	}
}

func TestResultsOfAnOldGenerationAreIgnored(t *testing.T) {
	b := New(time.Second, time.Minute, none)
	early, _ := b.Acquire(start)
	late, _ := b.Acquire(start)
	retryAt, _ := b.Failure(early, start, 0)
	if _, opened := b.Failure(late, start.Add(time.Hour), 0); opened {
		t.Error("a second failure of the same generation opened the breaker again")
	}
	if b.Success(late) {
		t.Error("a success from before the failure closed the breaker")
	}
	if state, at := b.State(); state != BackingOff || !at.Equal(retryAt) {
		t.Errorf("state %v until %v", state, at)
	}
	probe, _ := b.Acquire(retryAt)
	b.Reset()
	if _, opened := b.Failure(probe, retryAt, 0); opened {
		t.Error("a probe from before the reset opened the breaker")
	}
}

func TestCancelCountsNeitherWay(t *testing.T) {
	b := New(time.Second, time.Minute, none)
	p, _ := b.Acquire(start)
	b.Cancel(p)
	if state, _ := b.State(); state != Closed {
		t.Fatal("a cancelled batch moved a closed breaker")
	}
	retryAt := fail(t, b, start, 0)
	probe, _ := b.Acquire(retryAt)
	b.Cancel(probe)
	next, ok := b.Acquire(retryAt)
	if !ok || !next.Probe {
		t.Fatal("no probe after a cancelled one")
	}
	if at, _ := b.Failure(next, retryAt, 0); at.Sub(retryAt) != 2*time.Second {
		t.Errorf("the cancelled probe changed the wait to %v", at.Sub(retryAt))
	}
}

// A permit before the wait is over is the probe's, and leaves the wait as it was
// if it is cancelled.
func TestAcquireEarly(t *testing.T) {
	b := New(time.Second, time.Minute, none)
	if _, ok := b.AcquireEarly(); ok {
		t.Fatal("a closed breaker gave an early permit")
	}
	retryAt := fail(t, b, start, 0)
	probe, ok := b.AcquireEarly()
	if !ok || !probe.Probe || !b.Stands(probe) || !b.Blocked(retryAt) {
		t.Fatal("no probe before the wait is over")
	}
	if _, ok := b.AcquireEarly(); ok {
		t.Fatal("a second probe")
	}
	b.Cancel(probe)
	if state, at := b.State(); state != BackingOff || !at.Equal(retryAt) || b.Stands(probe) || !b.Blocked(retryAt.Add(-1)) {
		t.Errorf("after a cancelled early probe: %v until %v", state, at)
	}
	probe, _ = b.AcquireEarly()
	if !b.Success(probe) {
		t.Error("its success did not close the breaker")
	}
}

func TestFloorAndReset(t *testing.T) {
	b := New(time.Second, time.Minute, none)
	if at := fail(t, b, start, 10*time.Second); at.Sub(start) != 10*time.Second {
		t.Errorf("wait %v, want what the service asked for", at.Sub(start))
	}
	b.Reset()
	if b.Blocked(start) {
		t.Error("blocked after a reset")
	}
	if at := fail(t, b, start, time.Hour); at.Sub(start) != time.Minute {
		t.Errorf("wait %v, want no more than the maximum", at.Sub(start))
	}
}
