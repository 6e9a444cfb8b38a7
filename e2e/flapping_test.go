//go:build integration

package e2e

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"twinegress/e2e/env"
	"twinegress/internal/emulator"
)

// The receivers in the kill matrix whose services go away and come back all the time.
// The endpoint of one catches up, that of the other drops.
const (
	catcher = "catcher"
	dropper = "dropper"
)

func flappingServices(c *emulator.Config) {
	c.Hubs = append(c.Hubs, emulator.Hub{Name: catcher, Partitions: 3})
	c.Topics = append(c.Topics, emulator.Topic{Name: dropper})
}

// setEndpoints writes the endpoints file.
func (m *matrix) setEndpoints() {
	m.t.Helper()
	set := []env.Endpoint{
		m.h.Hub("SensorChange"), m.h.ServiceBus("SensorChange"),
		m.h.AMQP("EventHub", catcher, "SensorChange").With("recovery", "catchUp"),
		m.h.AMQP("ServiceBus", dropper, "SensorChange"),
	}
	if m.extra {
		set = append(set, m.h.AMQP("EventHub", "devices", "SensorChange"))
	}
	m.h.SetEndpoints(set...)
}

// absences are the ways in which a flapping service is away; the last one is for hubs.
var absences = []emulator.Fault{
	{Refuse: "amqp:not-found"},
	{RejectKey: "both"},
	{Cut: emulator.CutBefore},
	{Cut: emulator.CutDuring},
	{Outcome: emulator.OutcomeReleased},
	{NeverSettle: true},
	{Delay: emulator.Duration(time.Second)}, // it is slow: full lanes
	{Outcome: emulator.OutcomeRejected, Partitions: []int{1}},
}

// flap lets the two services go away and come back until its end is called, which
// brings them back. They are away for up to 3 s at a time.
func (m *matrix) flap() (steady func()) {
	done := make(chan struct{})
	var flapping sync.WaitGroup
	for _, entity := range []string{catcher, dropper} {
		ways, random := absences, rand.New(rand.NewPCG(m.random.Uint64(), 0))
		if entity == dropper {
			ways = absences[:len(absences)-1]
		}
		wait := func() bool {
			select {
			case <-time.After(300*time.Millisecond + time.Duration(random.Int64N(int64(2700*time.Millisecond)))):
				return true
			case <-done:
				return false
			}
		}
		flapping.Go(func() {
			for more := true; more; more = wait() {
				if err := m.h.Services.SetFault(entity, ways[random.IntN(len(ways))]); err != nil {
					m.t.Error(err)
				}
				wait()
				if err := m.h.Services.ClearFault(entity); err != nil {
					m.t.Error(err)
				}
			}
		})
	}
	var once sync.Once
	steady = func() {
		once.Do(func() { close(done) })
		flapping.Wait()
	}
	m.t.Cleanup(steady)
	return steady
}

// allLive blocks until no endpoint is behind, and checks that no commit lists one.
func (m *matrix) allLive(after string) {
	m.t.Helper()
	for _, name := range append(slices.Clone(entities), catcher, dropper) {
		env.Eventually(m.t, name+" is live after "+after, func() bool { return m.live(name) })
	}
	env.Eventually(m.t, "no commit lists an endpoint after "+after, func() bool { return slices.Equal(m.h.lists(), m.unlisted) })
}

// deferred is what the copies have counted as deferred.
func (m *matrix) deferred() (n int64) {
	for _, r := range m.copies {
		n += int64(r.standings()[catcher].Deferred)
	}
	return n
}
