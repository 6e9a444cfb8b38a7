package e2e

import (
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"twinegress/e2e/env"
	"twinegress/internal/emulator"
	"twinegress/pipeline"
)

// standings returns the status of a copy's endpoints, by name; none if it doesn't
// answer. The equation must hold in each.
func (r *replica) standings() map[string]pipeline.EndpointStatus {
	st := r.status()
	r.h.equation(st)
	byName := make(map[string]pipeline.EndpointStatus)
	for _, e := range st.Endpoints {
		byName[e.Name] = e
	}
	return byName
}

// of adds an endpoint's status up over the copies; ok is false unless all answer.
func (f *fleet) of(name string) (sum pipeline.EndpointStatus, ok bool) {
	sum.Dropped = make(map[string]uint64)
	for _, r := range f.copies {
		e, found := r.standings()[name]
		if !found {
			return sum, false
		}
		sum.ID, sum.State = e.ID, e.State
		sum.Routed += e.Routed
		sum.Delivered += e.Delivered
		sum.Deferred += e.Deferred
		sum.Pending += e.Pending
		sum.Backlog += e.Backlog
		for reason, n := range e.Dropped {
			sum.Dropped[reason] += n
		}
		if e.BehindSince != nil {
			sum.BehindSince = e.BehindSince
		}
	}
	return sum, true
}

// live reports whether an endpoint is behind nowhere, and every event has its outcome.
func (f *fleet) live(name string) bool {
	e, ok := f.of(name)
	return ok && e.BehindSince == nil && e.Backlog == 0 && e.Pending == 0
}

// lists returns what the group's commits have beside their offsets, each text once: who
// is behind.
func (h *harness) lists() []string {
	h.T.Helper()
	offsets, err := h.Admin.FetchOffsets(h.Context(), h.Group)
	h.Must(err)
	var lists []string
	for _, o := range offsets[h.Topic] {
		lists = append(lists, o.Metadata)
	}
	slices.Sort(lists)
	return slices.Compact(lists)
}

// behind is a group of copies under load, whose endpoints at the hub and at the Event
// Grid topic catch up. The one at the Service Bus topic drops, as endpoints do that say
// nothing, and its service never fails.
type behind struct {
	fleet
	load     *load
	settings env.Settings
	unlisted []string // lists while nobody is behind
	counted  bool     // no copy was killed or restarted: its counts are whole
}

const (
	behindPartitions = 6
	behindRate       = 600 // events a second; the program may have the race detector
)

// leavers are the entities of the endpoints that catch up.
var leavers = []string{"hub", "grid"}

func (h *harness) leavingEndpoints() []env.Endpoint {
	set := h.everyType()
	for i, e := range set {
		if slices.Contains(leavers, e.Text("name")) {
			set[i] = e.With("recovery", "catchUp")
		}
	}
	return set
}

// behind starts so many copies, and the load.
func (h *harness) behind(copies int, more env.Settings) *behind {
	h.T.Helper()
	h.SetEndpoints(h.leavingEndpoints()...)
	b := &behind{fleet: fleet{h: h, partitions: behindPartitions}, settings: env.Settings{"backoff.max": "1s"}, counted: true}
	maps.Copy(b.settings, more)
	b.scale(copies)
	b.load = h.load(b.partitions, behindRate)
	b.load.flows("the load flows", everywhere...)
	h.AwaitCommittedOnce(b.partitions)
	b.unlisted = h.lists()
	return b
}

// scale starts copies up to so many, and blocks until each has its share.
func (b *behind) scale(copies int) {
	b.h.T.Helper()
	b.grow(copies, func(string) env.Settings { return b.settings })
	b.awaitShares(false)
}

// leave takes the services of hub and grid away, and blocks until both endpoints are
// behind by so many events at least. The other one gets everything meanwhile.
func (b *behind) leave(backlog int64) {
	b.h.T.Helper()
	b.h.SetFault(emulator.Fault{Refuse: "amqp:not-found"}, "hub")
	b.h.SetFault(emulator.Fault{Down: true}, "grid")
	b.awaitBehind(backlog)
}

// awaitBehind blocks until hub and grid are behind by so many events at least.
func (b *behind) awaitBehind(backlog int64) {
	b.h.T.Helper()
	for _, name := range leavers {
		env.Eventually(b.h.T, fmt.Sprintf("%s is behind by %d events", name, backlog), func() bool {
			e, ok := b.of(name)
			return ok && e.BehindSince != nil && e.Backlog >= backlog
		})
	}
	b.load.flows("the endpoint that never fails gets everything", "topic")
}

// joined stops the load, and checks that everything has arrived everywhere in order,
// nothing was dropped, and nobody is behind in the end, nor listed as such. It returns
// what the endpoint that never fails got.
func (b *behind) joined() (steady env.Summary) {
	b.h.T.Helper()
	b.load.pause()
	b.load.flows("everything arrives", everywhere...)
	b.h.allCommitted(b.copies...)
	for _, name := range everywhere {
		env.Eventually(b.h.T, name+" is live", func() bool { return b.live(name) })
		e, _ := b.of(name)
		if dropped(e) > 0 {
			b.h.T.Errorf("%s dropped events: %v", name, e.Dropped)
		}
		if left := slices.Contains(leavers, name); b.counted && left != (e.Deferred > 0) {
			b.h.T.Errorf("%s deferred %d events", name, e.Deferred)
		}
		s := b.h.Ledger.Take(name, nil)
		if name == "topic" {
			steady = s
		}
		if s.Lost+s.Reordered+s.Misplaced > 0 || b.h.Ledger.Count(name) != b.load.total() {
			b.h.T.Errorf("%s has %d different events of %d: %+v", name, b.h.Ledger.Count(name), b.load.total(), s)
		}
		if b.counted && (e.Delivered < uint64(b.load.total()) || e.Delivered > uint64(s.Arrivals)) {
			b.h.T.Errorf("%s delivered %d of %d events: %+v", name, e.Delivered, b.load.total(), s)
		}
	}
	env.Eventually(b.h.T, "no commit lists an endpoint", func() bool { return slices.Equal(b.h.lists(), b.unlisted) })
	return steady
}

// Two endpoints go away and come back: they get everything, in order, and the third
// one doesn't notice.
func catchesUp(h *harness) {
	b := h.behind(1, nil)
	b.leave(3 * behindRate)
	h.Repair(leavers...)
	env.Eventually(h.T, "both have joined under load", func() bool { return b.live("hub") && b.live("grid") })
	if s := b.joined(); s.Repeats > 0 {
		h.T.Errorf("the endpoint that never failed: %+v", s)
	}
}

// A copy is killed while endpoints are behind in its partitions, and again while they
// are catching up: whoever has the partitions next goes on.
func killedBehind(h *harness) {
	b := h.behind(2, nil)
	b.counted = false
	b.leave(2 * behindRate)
	b.restart(b.copies[0], syscall.SIGKILL)
	b.awaitBehind(2 * behindRate) // what it missed before it was killed is not forgotten
	b.slowly()
	b.restart(b.copies[1], syscall.SIGKILL)
	h.Repair(leavers...)
	b.joined()
}

// restart ends a copy with a signal and starts it again.
func (b *behind) restart(r *replica, signal syscall.Signal) {
	b.h.T.Helper()
	if signal == syscall.SIGKILL {
		r.kill()
	} else {
		r.stop()
	}
	r.start()
	r.awaitReady()
	b.awaitShares(false)
}

// slowly brings the services back, so slow that catching up takes a while, and blocks
// until a part of it is done.
func (b *behind) slowly() {
	b.h.T.Helper()
	was := make(map[string]uint64)
	for _, name := range leavers {
		e, _ := b.of(name)
		was[name] = e.Delivered
	}
	b.h.SetFault(emulator.Fault{Delay: emulator.Duration(200 * time.Millisecond)}, leavers...)
	for _, name := range leavers {
		env.Eventually(b.h.T, name+" is catching up", func() bool {
			e, ok := b.of(name)
			return ok && e.Delivered > was[name]
		})
	}
}

// Three copies are restarted one by one while endpoints are behind, and once more
// while they catch up.
func rolledBehind(h *harness) {
	b := h.behind(3, env.Settings{"batch.maxEvents": "20"})
	b.counted = false
	b.leave(behindRate)
	for _, r := range b.copies {
		b.restart(r, syscall.SIGTERM)
	}
	b.awaitBehind(behindRate)
	b.slowly()
	for _, r := range b.copies {
		b.restart(r, syscall.SIGTERM)
	}
	h.Repair(leavers...)
	if s := b.joined(); s.Repeats > 0 {
		h.T.Errorf("a stop in order repeats nothing: %+v", s)
	}
}

// Copies join and leave while endpoints are behind, and while they catch up.
func rebalancedBehind(h *harness) {
	b := h.behind(2, env.Settings{"batch.maxEvents": "20"})
	b.counted = false
	b.leave(2 * behindRate)
	b.scale(3)
	b.awaitBehind(2 * behindRate)
	b.slowly()
	b.scale(4)
	b.copies[3].stop()
	b.copies = b.copies[:3]
	b.awaitShares(false)
	h.Repair(leavers...)
	b.joined()
}

// An endpoint that takes a tenth of what comes is behind, and nobody waits for it.
func slowCatchesUp(h *harness) {
	b := h.behind(1, env.Settings{"batch.maxEvents": "10", "ingest.maxInFlightBytes": "16MiB"})
	begun := h.Ledger.Now()
	// Four lanes of the hub, ten events a batch: 40 a second.
	h.SetFault(emulator.Fault{Delay: emulator.Duration(time.Second)}, "hub")
	heldBack := false
	end := h.repeat(func() {
		for _, e := range b.copies[0].standings() {
			heldBack = heldBack || e.HoldsBack
		}
	})
	env.Eventually(h.T, "the slow endpoint is far behind", func() bool {
		e, ok := b.of("hub")
		return ok && e.Backlog > 8*behindRate && e.BehindSince != nil
	})
	b.load.flows("the others get everything", "topic", "grid")
	end()
	if heldBack {
		h.T.Error("the others waited")
	}
	if waited := b.load.slowest("topic", begun); realKafka && waited > time.Second {
		h.T.Errorf("an event of another endpoint waited %v, want at most a second", waited)
	}
	h.Repair("hub")
	env.Eventually(h.T, "it has joined", func() bool { return b.live("hub") })
	b.load.pause()
	b.load.flows("everything arrives", everywhere...)
	for _, entity := range everywhere {
		if s := h.Ledger.Take(entity, nil); s != (env.Summary{Arrivals: int(b.load.total())}) {
			h.T.Errorf("%s: %+v of %d events", entity, s, b.load.total())
		}
	}
}

// Retention takes what endpoints that are behind have not got: it is counted, said, and
// what is left arrives in order.
func retentionBehind(h *harness) {
	b := h.behind(1, nil)
	b.load.pause()
	b.load.flows("nothing is on its way", everywhere...)
	h.SetFault(emulator.Fault{Refuse: "amqp:not-found"}, "hub")
	b.load.resume()
	env.Eventually(h.T, "hub is behind", func() bool {
		e, ok := b.of("hub")
		return ok && e.BehindSince != nil && e.Backlog > 2*behindRate
	})
	b.load.pause()
	h.AwaitCommitted()
	var taken kadm.Offsets
	expired := int64(0)
	for p, end := range b.load.ends() {
		from := h.Ledger.Complete("hub", p)
		to := (from + end) / 2
		expired += to - from
		taken.AddOffset(h.Topic, p, to, -1)
	}
	_, err := h.Admin.DeleteRecords(h.Context(), taken)
	h.Must(err)
	b.load.resume()
	h.Repair("hub")
	env.Eventually(h.T, "hub has joined", func() bool { return b.live("hub") })
	b.load.pause()
	b.load.flows("the others get everything", "topic", "grid")
	h.allCommitted(b.copies...)
	env.Eventually(h.T, "every event has its outcome", func() bool { return b.live("hub") })
	e, _ := b.of("hub")
	s := h.Ledger.Take("hub", nil)
	// The reader may have had some of them already.
	if s.Reordered > 0 || s.Lost == 0 || int64(s.Lost) > expired || e.Dropped["expired"] != uint64(s.Lost) || dropped(e) != uint64(s.Lost) {
		h.T.Errorf("%d events expired; the hub: %+v, dropped %v", expired, s, e.Dropped)
	}
	if int64(s.Arrivals-s.Repeats+s.Lost) != b.load.total() {
		h.T.Errorf("of %d events: %+v", b.load.total(), s)
	}
	if !b.copies[0].logged("events have left the topic", e.ID) {
		h.T.Error("the log doesn't say what the endpoint has lost")
	}
}
