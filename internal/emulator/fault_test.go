package emulator_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"twinegress/internal/emulator"
)

func set(t *testing.T, e *emulator.Emulator, entity string, f emulator.Fault) {
	t.Helper()
	if err := e.SetFault(entity, f); err != nil {
		t.Fatal(err)
	}
}

// Revoking one key does not affect the other, on live links too.
func TestRevokePrimary(t *testing.T) {
	both(t, func(t *testing.T, e *emulator.Emulator, entity string, primary sender) {
		ctx := within(t, 5*time.Second)
		secondary := connect(t, entity, e.ConnectionString(emulator.Secondary))
		for _, s := range []sender{primary, secondary} {
			if err := s.send(ctx, "", "a"); err != nil {
				t.Fatal(err)
			}
		}
		set(t, e, entity, emulator.Fault{RejectKey: "primary"})
		if err := primary.send(ctx, "", "b"); class(err) != "unauthorized" {
			t.Errorf("primary: %v", err)
		}
		if err := secondary.send(ctx, "", "c"); err != nil {
			t.Errorf("secondary: %v", err)
		}
	})
}

// Sends recover from a connection that is cut once: the one that it meets, or the
// next one. A lost settlement duplicates the message, which at-least-once has to allow.
func TestCutOnce(t *testing.T) {
	for cut, stored := range map[string]int64{
		emulator.CutMid: 3, emulator.CutBefore: 3, emulator.CutDuring: 4, emulator.CutAfter: 3, emulator.CutClose: 3,
	} {
		t.Run(cut, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, e *emulator.Emulator, entity string, s sender) {
				ctx := within(t, 5*time.Second)
				if err := s.send(ctx, "", "first"); err != nil {
					t.Fatal(err)
				}
				set(t, e, entity, emulator.Fault{Cut: cut, Times: 1})
				for _, body := range []string{strings.Repeat("long", 50000), "last"} {
					if err := s.send(ctx, "", body); err != nil {
						t.Errorf("not recovered: %v", err)
					}
				}
				if st := e.Stats().Entity(entity); st.Count != stored || st.Distinct != 3 {
					t.Errorf("%d messages, %d different; want %d and 3", st.Count, st.Distinct, stored)
				}
			})
		})
	}
}

// Many senders while faults are set and cleared, and a Close meanwhile: for the race detector.
func TestTurmoil(t *testing.T) {
	e := start(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 4 {
		s := connect(t, []string{"hub", "topic"}[i%2], e.ConnectionString(emulator.Key(i/2)))
		wg.Go(func() {
			for ctx.Err() == nil {
				one, stop := context.WithTimeout(ctx, 100*time.Millisecond)
				_ = s.send(one, "", "a", "b") // faults are on: any outcome will do
				stop()
			}
		})
	}
	for round := range 3 {
		for _, f := range []emulator.Fault{
			{RejectKey: "primary"},
			{Refuse: "amqp:not-found"},
			{Cut: emulator.CutDuring, Every: 2},
			{Detach: "amqp:link:detach-forced"},
			{NoCredit: true},
			{Delay: emulator.Duration(time.Millisecond)},
			{Throttle: 1},
			{Silent: true},
			{Hang: true},
			{Down: true},
		} {
			name := []string{"hub", "topic", emulator.Namespace}[round]
			if f.Down {
				name = emulator.Namespace
			}
			set(t, e, name, f)
			before := e.Stats().Entity("hub").Batches + e.Stats().Entity("topic").Refused
			short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
			_ = e.Wait(short, func(s emulator.Stats) bool { return s.Entity("hub").Batches+s.Entity("topic").Refused > before+10 })
			stop()
			if err := e.ClearFault(name); err != nil {
				t.Error(err)
			}
		}
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if n := e.Stats().Entity("hub").Links + e.Stats().Entity("topic").Links; n != 0 {
		t.Errorf("%d links after Close", n)
	}
	if err := e.SetFault("hub", emulator.Fault{Hang: true}); err == nil {
		t.Error("a closed emulator took a fault")
	}
	cancel()
	wg.Wait()
}

// Every and Times limit a fault to some deliveries.
func TestEveryAndTimes(t *testing.T) {
	e := start(t)
	s := hub(t, e.ConnectionString(emulator.Primary), "hub")
	ctx := within(t, 5*time.Second)
	set(t, e, "hub", emulator.Fault{Outcome: "rejected", Condition: "amqp:not-allowed", Every: 3, Times: 2})
	var failed []int
	for i := range 12 {
		if err := s.send(ctx, "", "a"); err != nil {
			failed = append(failed, i)
		}
	}
	if len(failed) != 2 || failed[0] != 2 || failed[1] != 5 {
		t.Errorf("failed: %v", failed)
	}
}

func TestNoCredit(t *testing.T) {
	e := start(t)
	set(t, e, "hub", emulator.Fault{NoCredit: true})
	s := hub(t, e.ConnectionString(emulator.Primary), "hub")
	done := make(chan error, 1)
	ctx := within(t, 5*time.Second)
	go func() { done <- s.send(ctx, "", "a") }()
	// Attached, and waiting for credit.
	if err := e.Wait(ctx, func(s emulator.Stats) bool { return s.Entity("hub").Links == 1 }); err != nil {
		t.Fatal(err)
	}
	if err := e.ClearFault("hub"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A delayed settlement doesn't delay other links.
func TestSlowIsAlone(t *testing.T) {
	e := start(t)
	ctx := within(t, 10*time.Second)
	s := hub(t, e.ConnectionString(emulator.Primary), "hub")
	other := topic(t, e.ConnectionString(emulator.Primary), "topic")
	for _, s := range []sender{s, other} {
		if err := s.send(ctx, "", "a"); err != nil {
			t.Fatal(err)
		}
	}
	set(t, e, "hub", emulator.Fault{Delay: emulator.Duration(400 * time.Millisecond)})
	begin, done := time.Now(), make(chan error, 1)
	go func() { done <- s.send(ctx, "", "b") }()
	for range 20 {
		if err := other.send(ctx, "", "b"); err != nil {
			t.Fatal(err)
		}
	}
	fast := time.Since(begin)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if slow := time.Since(begin); slow < 400*time.Millisecond || fast > slow {
		t.Errorf("20 fast sends took %v, the slow one %v", fast, slow)
	}
}

func TestBadFaults(t *testing.T) {
	e := start(t)
	for name, f := range map[string]emulator.Fault{
		"no entity": {Hang: true}, "hub": {Down: true}, "topic": {RejectKey: "third"}, "grid": {Status: 99},
	} {
		if err := e.SetFault(name, f); err == nil {
			t.Errorf("%s took %+v", name, f)
		}
	}
	for name, last := range map[string]int{"hub": 3, "topic": 0, "grid": 0, emulator.Namespace: 0} {
		if err := e.SetFault(name, emulator.Fault{NeverSettle: true, Partitions: []int{0, last + 1}}); err == nil {
			t.Errorf("%s took a fault of partition %d", name, last+1)
		}
	}
	for _, f := range []emulator.Fault{{Cut: "x"}, {Outcome: "x"}, {Every: -1}} {
		if err := e.SetFault("hub", f); err == nil {
			t.Errorf("hub took %+v", f)
		}
	}
}

// A fault of some partitions of a hub leaves the others alone: when their links
// are attached, while they are live, and at each delivery.
func TestFaultOfSomePartitions(t *testing.T) {
	for _, f := range []emulator.Fault{
		{Refuse: "com.microsoft:server-error"},
		{Detach: "amqp:link:detach-forced"},
		{Outcome: emulator.OutcomeRejected},
		{Cut: emulator.CutBefore},
		{RejectKey: "primary"},
	} {
		for _, live := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v/live %v", f, live), func(t *testing.T) {
				e := start(t)
				ctx := within(t, 10*time.Second)
				s := hub(t, e.ConnectionString(emulator.Primary), "hub")
				// A connection each: what cuts one leaves the other's link alone.
				other := hub(t, e.ConnectionString(emulator.Primary), "hub")
				if live {
					for partition, s := range map[string]hubSender{"1": s, "2": other} {
						if err := s.send(ctx, partition, "a"); err != nil {
							t.Fatal(err)
						}
					}
				}
				f.Partitions = []int{1, 3}
				set(t, e, "hub", f)
				if err := s.send(ctx, "1", "a"); err == nil {
					t.Error("the partition works")
				}
				if err := other.send(ctx, "2", "a"); err != nil {
					t.Errorf("another partition: %v", err)
				}
				if err := e.ClearFault("hub"); err != nil {
					t.Fatal(err)
				}
				if err := hub(t, e.ConnectionString(emulator.Primary), "hub").send(ctx, "1", "a"); err != nil {
					t.Errorf("after the fault: %v", err)
				}
			})
		}
	}
}
