package e2e

import (
	"encoding/json"
	"net/http"
	"syscall"
	"time"

	"twinegress/e2e/env"
	"twinegress/internal/eventually"
	reported "twinegress/pipeline/fleet" // the kill matrix has a fleet of its own
)

// fleet returns all copies as one of them knows them; the zero report if it doesn't
// answer.
func (r *replica) fleet() (all reported.Report) {
	if a, err := r.get(&r.api, "/fleet"); err == nil && a.status == http.StatusOK {
		if err := json.Unmarshal(a.body, &all); err != nil {
			r.t.Errorf("%s's fleet: %v", r.name, err)
		}
	}
	return all
}

// copiesOf returns how many copies a report has, how many of them are stale, and what
// was routed in all. The equation must hold in the sums.
func copiesOf(h *harness, all reported.Report) (copies, stale int, routed uint64) {
	h.T.Helper()
	for _, c := range all.Copies {
		copies++
		if c.Stale {
			stale++
		}
	}
	for _, e := range all.Endpoints {
		outcomes := e.Delivered + e.Deferred + uint64(e.Pending)
		for _, n := range e.Dropped {
			outcomes += n
		}
		if outcomes != e.Routed {
			h.T.Errorf("the equation doesn't hold: %+v", e)
		}
		routed += e.Routed
	}
	return copies, stale, routed
}

// Three processes: the sums are the same on each; a retry on one ends the back-off on
// all; one that is killed and one that is frozen are stale within 5 s.
func threeCopies(h *harness) {
	h.SetEndpoints(h.ServiceBus("SensorChange"))
	settings := env.Settings{"backoff.initial": "10m", "backoff.max": "10m"}
	copies := []*replica{h.run("one", settings), h.run("two", settings), h.run("three", settings)}
	one, two, three := copies[0], copies[1], copies[2]
	const events = 300
	h.Produce(h.Events(events)...)
	for _, r := range copies {
		env.Eventually(h.T, r.name+" knows all sums", func() bool {
			n, stale, routed := copiesOf(h, r.fleet())
			return n == 3 && stale == 0 && routed == events
		})
	}

	h.refuse("topic")
	backOff := func(all reported.Report) int {
		if len(all.Endpoints) != 1 {
			return -1
		}
		return all.Endpoints[0].States["backing_off"]
	}
	env.Eventually(h.T, "all copies back off", func() bool {
		h.Produce(h.Events(30)...)
		return backOff(one.fleet()) == 3
	})
	if all := three.fleet(); len(all.Troubles) == 0 || all.Troubles[0].Severity != reported.Critical {
		h.T.Errorf("troubles %+v", all.Troubles)
	}
	h.Repair("topic")
	if got := two.manage(http.StatusOK, http.MethodPost, "/endpoints/"+one.fleet().Endpoints[0].ID+"/retry", nil); got != `{"copies":3,"notice":""}`+"\n" {
		h.T.Errorf("retry: %s", got)
	}
	for _, r := range copies {
		env.Eventually(h.T, "no copy backs off", func() bool { return backOff(r.fleet()) == 0 })
	}

	two.signal(syscall.SIGKILL)
	three.signal(syscall.SIGSTOP)
	eventually.Within(h.T, 6*time.Second, "two copies are stale", func() bool {
		all := one.fleet()
		n, stale, routed := copiesOf(h, all)
		own := uint64(0)
		for _, e := range one.status().Endpoints {
			own += e.Routed
		}
		return n == 3 && stale == 2 && routed == own
	})
	three.signal(syscall.SIGCONT)
	env.Eventually(h.T, "the one that was frozen is back", func() bool {
		_, stale, _ := copiesOf(h, one.fleet())
		return stale == 1
	})
}
