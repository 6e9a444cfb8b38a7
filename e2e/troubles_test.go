package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"twinegress/e2e/env"
	"twinegress/internal/emulator"
	"twinegress/internal/eventually"
)

// truthWithin is how soon every place where somebody on call looks tells of a
// trouble.
const truthWithin = 15 * time.Second

// trouble is what can go wrong with an endpoint's service, and what is said of it.
// Each text is a regular expression. It has at most a row for each place.
type trouble struct {
	name   string
	at     string // the endpoint, which has its entity's name and path
	fault  emulator.Fault
	state  string // of the status and of the fleet
	key    string // "" if either
	words  string // the cause, in lastError, in the fleet's sentence and in the log
	logged string // in the same line of the log
	metric string // a series that an alert looks at; ID is the endpoint's
	v1     string // status of the resource
	holds  bool   // holdsBack
}

const (
	failing = "backing_off|probing"
	backOff = "backs off"
	backing = `twinegress_endpoint_state{endpoint="ID",state="(` + failing + `)"} 1`
)

// troubles are all at once, each at an endpoint of its own.
var troubles = []trouble{
	{
		name: "both keys refused", at: "keys", fault: emulator.Fault{RejectKey: "both"},
		state: failing, words: "key", logged: backOff, metric: backing, v1: "Failed",
	},
	{
		name: "entity not found", at: "missing", fault: emulator.Fault{Refuse: "amqp:not-found"},
		state: failing, words: "does not exist", logged: backOff, metric: backing, v1: "Failed",
	},
	{
		name: "entity disabled", at: "disabled", fault: emulator.Fault{Refuse: "com.microsoft:entity-disabled"},
		state: failing, words: "disabled", logged: backOff, metric: backing, v1: "Failed",
	},
	{
		name: "released", at: "released", fault: emulator.Fault{Outcome: "released"},
		state: failing, words: "back", logged: backOff, metric: backing, v1: "Failed",
	},
	{
		name: "never settles", at: "silent", fault: emulator.Fault{NeverSettle: true},
		state: failing, words: "answer", logged: backOff, metric: backing, v1: "Failed",
	},
	{
		name: "refuses everything", at: "grid", fault: emulator.Fault{Status: http.StatusBadRequest},
		state: "degraded", words: "refuses", logged: "refuses", v1: "Ready",
		metric: `twinegress_endpoint_state{endpoint="ID",state="degraded"} 1`,
	},
	{
		name: "throttled", at: "throttled", fault: emulator.Fault{Throttle: 4},
		state: "throttled", words: "busy|throttle|wait", logged: "throttles", v1: "Ready",
		metric: `twinegress_endpoint_state{endpoint="ID",state="throttled"} 1`,
	},
	{
		name: "primary refused", at: "secondary", fault: emulator.Fault{RejectKey: "primary"},
		state: "ready", key: "secondary", words: "key", logged: "key refused", v1: "Ready",
		metric: `twinegress_endpoint_key{endpoint="ID",key="secondary"} 1`,
	},
}

// slow is by itself, since everything waits for it.
var slow = trouble{
	name: "slow", at: "slow", fault: emulator.Fault{Delay: emulator.Duration(time.Second)},
	state: "ready|throttled", holds: true, logged: "waits for", v1: "Ready",
	metric: `twinegress_endpoint_holds_back{endpoint="ID"} 1`,
}

// onCall is three copies, and somebody who looks at them.
type onCall struct {
	*harness
	copies []*replica
	ids    map[string]string // of the endpoints, by name
	table  strings.Builder
	mu     sync.Mutex
	since  time.Time // when the faults were injected
}

// fleetReply is what is read of GET …/fleet.
type fleetReply struct {
	Copies []struct {
		ID    string
		Stale bool
		Self  bool
		Ready bool
	}
	Endpoints []fleetEndpoint
	Troubles  []struct{ What, Endpoint, Action string }
}

type fleetEndpoint struct {
	ID, Name, State, Key, LastError string
	HoldsBack                       bool
	Routed, Delivered, Deferred     uint64
	Pending                         int
	Dropped                         map[string]uint64
}

func TestTroubles(t *testing.T) {
	var hubs []emulator.Hub
	for _, tr := range append(slices.Clone(troubles), slow) {
		if tr.at != "grid" {
			hubs = append(hubs, emulator.Hub{Name: tr.at, Partitions: 2})
		}
	}
	hubs = append(hubs, emulator.Hub{Name: "well", Partitions: 2})
	h := newHarness(t, env.Config{Partitions: 6, Services: func(c *emulator.Config) {
		c.Hubs, c.Record = hubs, 0
	}})
	set := []env.Endpoint{h.Grid("SensorChange")}
	for _, hub := range hubs {
		ep := h.AMQP("EventHub", hub.Name, "SensorChange")
		if hub.Name == "throttled" { // or everything would wait for it
			ep = ep.With("overflow", "drop")
		}
		set = append(set, ep)
	}
	h.SetEndpoints(set...)
	o := &onCall{harness: h, ids: make(map[string]string)}
	settings := env.Settings{"backoff.initial": "30s", "send.timeout": "3s", "batch.maxEvents": "10", "ingest.maxInFlightBytes": "8MiB"}
	for _, name := range []string{"a", "b", "c"} {
		o.copies = append(o.copies, o.run(name, settings))
	}
	env.Eventually(t, "each copy has two partitions", func() bool {
		return !slices.ContainsFunc(o.copies, func(r *replica) bool { return len(r.status().Ingest.Partitions) != 2 })
	})
	o.feed()
	o.look("all is well", func(r *replica) error {
		for _, e := range o.fleet(r).Endpoints {
			if e.State != "ready" {
				return fmt.Errorf("%s is %s: %s", e.Name, e.State, e.LastError)
			}
			o.mu.Lock()
			o.ids[e.Name] = e.ID
			o.mu.Unlock()
		}
		if len(o.ids) != len(set) {
			return fmt.Errorf("the fleet has %d endpoints", len(o.ids))
		}
		return nil
	})

	o.since = time.Now()
	for _, tr := range troubles {
		h.SetFault(tr.fault, tr.at)
	}
	for _, tr := range troubles {
		o.told(tr)
	}
	for _, tr := range troubles {
		h.Repair(tr.at)
	}
	for id := range o.ids {
		o.copies[0].manage(http.StatusOK, http.MethodPost, "/endpoints/"+o.ids[id]+"/retry", nil)
	}
	o.look("all is well again", func(r *replica) error {
		for _, e := range o.fleet(r).Endpoints {
			if e.State != "ready" && e.State != "provisioning" {
				return fmt.Errorf("%s is %s: %s", e.Name, e.State, e.LastError)
			}
		}
		return nil
	})

	o.since = time.Now()
	h.SetFault(slow.fault, slow.at)
	o.told(slow)
	h.Repair(slow.at)

	o.since = time.Now()
	h.SetFault(emulator.Fault{Down: true}, emulator.Namespace)
	o.told(trouble{
		name: "namespace down", at: "well", state: failing, words: "refused|no connection|can't be reached",
		logged: backOff, metric: backing, v1: "Failed",
	})
	h.Repair(emulator.Namespace)

	if h.Network != nil {
		o.since = time.Now()
		h.Network.Cut()
		o.lost("Kafka gone")
		h.Network.Restore()
		o.back()
		o.since = time.Now()
		h.Network.Freeze()
		o.lost("Kafka frozen")
		h.Network.Restore()
		o.back()
	}
	t.Logf("\n%s", o.table.String())
}

// feed produces events until the test ends.
func (o *onCall) feed() {
	ctx, cancel := context.WithCancel(context.Background())
	var feeding sync.WaitGroup
	feeding.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, r := range o.Events(30) {
				o.Client.TryProduce(ctx, r, nil)
			}
		}
	})
	o.T.Cleanup(func() { cancel(); feeding.Wait() })
}

// look looks at every copy until each satisfies, within truthWithin.
func (o *onCall) look(what string, at func(*replica) error) {
	o.T.Helper()
	began := time.Now()
	var wrong error
	eventually.Within(o.T, env.Timeout, what, func() bool {
		wrong = nil
		for _, r := range o.copies {
			if err := at(r); err != nil {
				wrong = fmt.Errorf("copy %s: %w", r.name, err)
				break
			}
		}
		if wrong != nil && time.Since(began) > truthWithin {
			o.T.Fatalf("%s: not told within %v: %v", what, truthWithin, wrong)
		}
		return wrong == nil
	})
}

// told looks at every place for a trouble.
func (o *onCall) told(tr trouble) {
	o.T.Helper()
	id := o.ids[tr.at]
	seen := make(map[string]time.Duration)
	o.look(tr.name, func(r *replica) error {
		for _, place := range []struct {
			name string
			told func() error
		}{
			{"readyz", func() error { return o.ready(r, http.StatusOK, "") }},
			{"status", func() error { return o.inStatus(r, tr) }},
			{"fleet", func() error { return o.inFleet(r, tr, id) }},
			{"list", func() error { return o.inList(r, tr) }},
			{"log", func() error { return o.inLog(r, tr, id) }},
			{"metric", func() error { return o.inMetrics(r, tr, id) }},
		} {
			if err := place.told(); err != nil {
				return fmt.Errorf("%s: %w", place.name, err)
			}
			if seen[place.name] == 0 {
				seen[place.name] = time.Since(o.since)
			}
		}
		return nil
	})
	fmt.Fprintf(&o.table, "%-20s", tr.name)
	for _, place := range []string{"readyz", "status", "fleet", "list", "log", "metric"} {
		fmt.Fprintf(&o.table, " %s %.1fs", place, seen[place].Seconds())
	}
	o.table.WriteByte('\n')
}

func (o *onCall) ready(r *replica, want int, words string) error {
	a, err := r.get(&r.ops, "/readyz")
	if err != nil || a.status != want || !matches(words, string(a.body)) {
		return fmt.Errorf("%w, %d: %s, want %d with %q", err, a.status, a.body, want, words)
	}
	return nil
}

func matches(expr, text string) bool { return regexp.MustCompile(expr).MatchString(text) }

func (tr trouble) of(state, key, lastError string, holds bool) error {
	if !matches("^("+tr.state+")$", state) || tr.key != "" && key != tr.key || !matches(tr.words, lastError) || tr.holds && !holds {
		return fmt.Errorf("state %s, key %s, holdsBack %v, lastError %q", state, key, holds, lastError)
	}
	return nil
}

func (o *onCall) inStatus(r *replica, tr trouble) error {
	for _, e := range r.status().Endpoints {
		if e.Path == tr.at || strings.HasPrefix(e.Path, "127.0.0.1:") && tr.at == "grid" {
			return tr.of(string(e.State), e.Key, e.LastError, e.HoldsBack)
		}
	}
	return fmt.Errorf("no endpoint %s", tr.at)
}

func (o *onCall) fleet(r *replica) (f fleetReply) {
	if a, err := r.get(&r.api, "/fleet"); err == nil && a.status == http.StatusOK {
		if err := json.Unmarshal(a.body, &f); err != nil {
			o.T.Errorf("%s's fleet: %v", r.name, err)
		}
	}
	return f
}

func (o *onCall) inFleet(r *replica, tr trouble, id string) error {
	f := o.fleet(r)
	if len(f.Copies) != len(o.copies) {
		return fmt.Errorf("%d copies", len(f.Copies))
	}
	told := false
	for _, t := range f.Troubles {
		of := t.Endpoint == id || tr.at == "well" && strings.Contains(t.What, "endpoints at ") // one line for all of a host's
		told = told || of && t.What != "" && t.Action != ""
	}
	if !told {
		return fmt.Errorf("no trouble of it among %d", len(f.Troubles))
	}
	for _, e := range f.Endpoints {
		if e.ID != id {
			continue
		}
		sum := e.Delivered + e.Deferred + uint64(e.Pending)
		for _, n := range e.Dropped {
			sum += n
		}
		if sum != e.Routed {
			return fmt.Errorf("%d routed, and %d accounted for", e.Routed, sum)
		}
		return tr.of(e.State, e.Key, e.LastError, e.HoldsBack)
	}
	return fmt.Errorf("no endpoint %s", tr.at)
}

func (o *onCall) inList(r *replica, tr trouble) error {
	for _, e := range r.list("") {
		if e.Name != tr.at {
			continue
		}
		told := e.Properties["reason"] + e.Properties["lastError"] + e.Properties["state"] + e.Properties["key"]
		if e.Status != tr.v1 || told == "" {
			return fmt.Errorf("status %s, properties %v", e.Status, e.Properties)
		}
		return nil
	}
	return fmt.Errorf("no endpoint %s", tr.at)
}

// inLog looks for a line that names the endpoint; a namespace's names its host.
func (o *onCall) inLog(r *replica, tr trouble, id string) error {
	for line := range strings.Lines(r.log.String()) {
		if strings.Contains(line, tr.logged) && (strings.Contains(line, id) || tr.name == "namespace down") && matches(tr.words, line) {
			return nil
		}
	}
	return fmt.Errorf("no line with %q and %q", tr.logged, tr.words)
}

func (o *onCall) inMetrics(r *replica, tr trouble, id string) error {
	form := strings.ReplaceAll(strings.NewReplacer("{", `\{`, "}", `\}`).Replace(tr.metric), "ID", id)
	if !matches("(?m)^"+form+"$", r.metrics()) {
		return fmt.Errorf("no series %s", form)
	}
	return nil
}

// lost looks at every place for the loss of Kafka.
func (o *onCall) lost(name string) {
	o.T.Helper()
	o.look(name, func(r *replica) error {
		if err := o.ready(r, http.StatusServiceUnavailable, "(?i)broker"); err != nil {
			return fmt.Errorf("readyz: %w", err)
		}
		var st struct {
			Ready    *bool
			NotReady []string
			Ingest   struct{ Lag *int64 }
		}
		a, err := r.get(&r.api, "/status")
		if err != nil || json.Unmarshal(a.body, &st) != nil || st.Ready == nil || *st.Ready || len(st.NotReady) == 0 || st.Ingest.Lag != nil {
			return fmt.Errorf("status: %w, %+v", err, st)
		}
		f := o.fleet(r)
		if len(f.Troubles) == 0 || !matches("(?i)broker|kafka", f.Troubles[0].What) {
			return fmt.Errorf("fleet: %+v", f.Troubles)
		}
		if metrics := r.metrics(); strings.Contains(metrics, "\ntwinegress_ingest_lag_records ") {
			return fmt.Errorf("metrics: the lag is known")
		}
		return nil
	})
	fmt.Fprintf(&o.table, "%-20s readyz, status, fleet, metric %.1fs\n", name, time.Since(o.since).Seconds())
}

// back blocks until every copy is ready.
func (o *onCall) back() {
	o.T.Helper()
	for _, r := range o.copies {
		env.Eventually(o.T, r.name+" is ready again", func() bool { return o.ready(r, http.StatusOK, "") == nil })
	}
}
