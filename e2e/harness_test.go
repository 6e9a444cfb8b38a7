package e2e

import (
	"encoding/json"
	"testing"

	"twinegress/e2e/env"
	"twinegress/internal/emulator"
)

// protocols are the two ways of being in a group.
var protocols = []string{"classic", "consumer"}

// harness is an environment, in which a test starts processes of twinegress.
type harness struct {
	*env.Env
	protocol    string   // of the group
	environment []string // further variables of every process
}

// newHarness has an ingest topic of that many partitions, and the endpoints hub and topic.
func newHarness(t testing.TB, cfg env.Config) *harness {
	t.Helper()
	if cfg.Brokers == nil {
		cfg.Brokers = brokers(t)
	}
	h := &harness{Env: env.New(t, cfg), protocol: "classic"}
	if cfg.Services == nil { // else they have other names
		h.SetEndpoints(h.Hub("SensorChange"), h.ServiceBus("SensorChange"))
	}
	return h
}

// allCommitted blocks until every event has its outcome and the copies have no lag.
func (h *harness) allCommitted(copies ...*replica) {
	h.T.Helper()
	h.AwaitCommitted()
	for _, r := range copies {
		env.Eventually(h.T, r.name+" has no lag", func() bool { return r.status().Ingest.CaughtUp() })
	}
}

// arrivedOnce checks that so many events have arrived at each of these
// entities: each once, in the order of its Kafka partition, and at a hub in the
// partition that this one goes to.
func (h *harness) arrivedOnce(n int, entities ...string) {
	h.T.Helper()
	for _, entity := range entities {
		if s := h.Ledger.Take(entity, nil); s != (env.Summary{Arrivals: n}) {
			h.T.Errorf("%s: %+v, want %d arrivals and nothing else", entity, s, n)
		}
	}
}

// arrived checks that of so many events each has arrived at these entities, in
// order but for repeats.
func (h *harness) arrived(n int, entities ...string) {
	h.T.Helper()
	for _, entity := range entities {
		s := h.Ledger.Take(entity, nil)
		if s.Lost+s.Reordered+s.Misplaced > 0 || h.Ledger.Count(entity) != int64(n) {
			h.T.Errorf("%s has %d different events, want %d: %+v", entity, h.Ledger.Count(entity), n, s)
		}
	}
}

// slowDown lets each delivery take a moment, so that a signal finds the stream
// in its middle.
func (h *harness) slowDown(entities ...string) {
	h.T.Helper()
	h.SetFault(emulator.Fault{Delay: emulator.Duration(50e6)}, entities...)
}

// refuse lets entities refuse both keys.
func (h *harness) refuse(entities ...string) {
	h.T.Helper()
	h.SetFault(emulator.Fault{RejectKey: "both"}, entities...)
}

// variables are the environment of a process with these settings.
func (h *harness) variables(more env.Settings) []string {
	h.T.Helper()
	return append(h.Settings(more).Variables(), h.environment...)
}

// command runs a command of twinegress to its end and returns its exit code.
func (h *harness) command(more env.Settings, args ...string) (*process, int) {
	h.T.Helper()
	p := start(h.T, args[0], h.variables(more), args...)
	return p, p.wait()
}

// unmarshal reads JSON.
func unmarshal(t testing.TB, text string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		t.Fatalf("%v: %.500s", err, text)
	}
}
