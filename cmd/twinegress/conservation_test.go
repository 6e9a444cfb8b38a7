package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/pipeline"
)

// equation checks promise 4 on one snapshot.
func equation(t *testing.T, st pipeline.Status) {
	t.Helper()
	for _, e := range st.Endpoints {
		var dropped uint64
		for _, n := range e.Dropped {
			dropped += n
		}
		if e.Pending < 0 || e.Routed != e.Delivered+dropped+uint64(e.Pending) {
			t.Errorf("%s: routed %d != delivered %d + dropped %v + pending %d", e.Path, e.Routed, e.Delivered, e.Dropped, e.Pending)
		}
	}
}

// Under load, with endpoints that come, go and change, and services that fail
// and recover, the equation holds at every moment, and every event that an
// endpoint counts as delivered is at its service.
func TestConservation(t *testing.T) {
	const partitions, total = 6, 60_000
	w := newWorld(t, partitions)
	cfg := w.config()
	cfg.Send.Timeout, cfg.Backoff.Initial, cfg.Backoff.Max = time.Second, 20*time.Millisecond, 80*time.Millisecond
	options := endpoints.Options{AllowDevelopmentEmulator: true}
	hub, topic, grid := w.hub("SensorChange"), w.topic("SensorChange"), w.grid("SensorChange")
	store, err := endpoints.NewMemoryStore([]endpoints.Endpoint{hub, topic, grid}, options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s, err := app.New(ctx, app.Options{Config: cfg, Store: store, Version: version, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{App: s, t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- s.Run(ctx) }()

	var watchers sync.WaitGroup
	settled := make(chan struct{})
	watchers.Go(func() { // looks all the time
		for {
			select {
			case <-settled:
				return
			default:
				equation(t, s.Pipeline.Status())
			}
		}
	})
	records := numbered(total, partitions)
	faults := []emulator.Fault{
		{RejectKey: "primary"},
		{RejectKey: "both"},
		{Cut: emulator.CutDuring, Every: 2},
		{NeverSettle: true, Times: 2},
		{Delay: emulator.Duration(30e6)},
		{Throttle: 1, Times: 1},
		{Outcome: "released", Every: 3},
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	sets := [][]endpoints.Endpoint{{hub, grid}, {hub, topic}, {hub, topic, grid}}
	sets[1][1].EventTypes = []string{"SpaceChange", "SensorChange"}
	sets[2][1].SecondaryConnectionString = ""
	const steps = 60
	for step := range steps {
		// In step with the intake, so that sets and faults meet events.
		eventually(t, "most of what was produced is read", func() bool {
			return s.Pipeline.Status().Ingest.Records >= int64(max(step-2, 0)*total/steps)
		})
		w.produce(records[step*total/steps : (step+1)*total/steps]...)
		next, err := endpoints.Prepare(sets[rnd.IntN(len(sets))], options)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := store.Change(ctx, func([]endpoints.Endpoint) ([]endpoints.Endpoint, error) { return next, nil }); err != nil {
			t.Fatal(err)
		}
		entity := []string{"hub", "topic", "grid"}[rnd.IntN(3)]
		if rnd.IntN(3) == 0 {
			err = w.services.SetFault(entity, faults[rnd.IntN(len(faults))])
		} else {
			err = w.services.ClearFault(entity)
		}
		if err != nil && entity != "grid" { // some faults don't exist there
			t.Fatal(err)
		}
	}
	for _, entity := range []string{"hub", "topic", "grid"} {
		if err := w.services.ClearFault(entity); err != nil {
			t.Fatal(err)
		}
	}
	r.settled(total)
	close(settled)
	watchers.Wait()
	st := s.Pipeline.Status()
	equation(t, st)
	if st.Ingest.Events != total {
		t.Errorf("%d events, want %d", st.Ingest.Events, total)
	}
	for _, e := range st.Endpoints {
		if e.Path != "hub" {
			continue // the others have come and gone
		}
		if e.Routed != total {
			t.Errorf("the hub was routed %d events of %d", e.Routed, total)
		}
		// A drop may have been stored: its acknowledgement was lost.
		arrived := uint64(w.services.Stats().Entity("hub").Distinct)
		if arrived < e.Delivered || arrived > total {
			t.Errorf("the hub has %d distinct events, delivered are %d", arrived, e.Delivered)
		}
		if e.Delivered == 0 {
			t.Error("nothing was delivered to the hub: the faults did too much for this test to mean anything")
		}
		t.Logf("hub: delivered %d, arrived %d, dropped %v", e.Delivered, arrived, e.Dropped)
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for _, snap := range s.Pipeline.Snapshots() {
		if snap.Counts.Pending != 0 {
			t.Errorf("%s: %d events pending after a stop in order", snap.Endpoint.Path, snap.Counts.Pending)
		}
	}
}
