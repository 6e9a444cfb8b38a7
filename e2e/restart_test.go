package e2e

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"twinegress/e2e/env"
	"twinegress/internal/emulator"
	"twinegress/pipeline"
)

// everywhere are the entities of all three services.
var everywhere = []string{"hub", "topic", "grid"}

// everyType is an endpoint of each type, which takes every event.
func (h *harness) everyType() []env.Endpoint {
	return []env.Endpoint{h.Hub("SensorChange"), h.ServiceBus("SensorChange"), h.Grid("SensorChange")}
}

// Nothing is lost when the process is killed in mid-stream, and only what was
// in flight is repeated; nothing at all when it is stopped in order.
func restarts(signal syscall.Signal) func(*harness) {
	return func(h *harness) {
		const total = 12_000
		h.SetEndpoints(h.everyType()...)
		h.Produce(h.Events(total)...)
		h.slowDown(everywhere...)
		r := h.replica("one", env.Settings{"batch.maxEvents": "100"})
		r.start()
		env.Eventually(h.T, "a part has arrived everywhere", func() bool {
			return h.Count("hub") > total/10 && h.Count("topic") > total/10 && h.Count("grid") > total/10
		})
		r.signal(signal)
		if code := r.wait(); code != 0 && signal == syscall.SIGTERM {
			h.T.Errorf("a stop in order ended with exit code %d", code)
		}
		if n := h.Ledger.Count("hub"); n >= total {
			h.T.Fatalf("all %d events were delivered before the signal", n)
		}
		committed := h.Committed()
		h.Repair(everywhere...)
		r.start()
		h.AwaitCommitted()
		r.stop()
		if signal == syscall.SIGTERM {
			h.arrivedOnce(total, everywhere...)
			return
		}
		for _, entity := range everywhere {
			s := h.Ledger.Take(entity, committed)
			if s.Lost+s.Reordered+s.Misplaced+s.Behind > 0 || s.Arrivals-s.Repeats != total || s.Most > 1 {
				h.T.Errorf("%s: %+v, want %d different events, and repeats only of what was not committed", entity, s, total)
			}
		}
	}
}

// repeat calls a function again and again until its end is called, or the test ends.
func (h *harness) repeat(call func()) (end func()) {
	ctx, cancel := context.WithCancel(h.T.Context())
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			call()
		}
	})
	end = func() {
		cancel()
		running.Wait()
	}
	h.T.Cleanup(end)
	return end
}

// A change of the endpoints file takes effect without a restart, and no event
// of an endpoint that stays is lost, repeated or reordered by it.
func fileFollowed(h *harness) {
	hub, topic, grid := h.Hub("SensorChange"), h.ServiceBus("SensorChange"), h.Grid("SensorChange")
	r := h.run("one", nil)
	produced := 0
	end := h.repeat(func() {
		if h.Count("hub") > produced-2000 { // else it only waits in Kafka
			h.Produce(h.Events(200)...)
			produced += 200
		}
	})
	env.Eventually(h.T, "events at hub and topic", func() bool { return h.Count("hub") > 0 && h.Count("topic") > 0 })
	h.SetEndpoints(hub, topic, grid)
	env.Eventually(h.T, "events at the new endpoint", func() bool { return h.Count("grid") > 0 })
	h.Write("endpoints.json", []byte(`[{"type":"EventHub"`)) // a broken edit changes nothing
	reached := h.Count("hub")
	env.Eventually(h.T, "the broken edit is refused", func() bool {
		return strings.Contains(r.metrics(), "twinegress_endpoints_file_refused 1")
	})
	env.Eventually(h.T, "events go on", func() bool { return h.Count("hub") > reached+1000 })
	h.SetEndpoints(hub, topic.With("eventTypes", []string{"SpaceChange"}))
	env.Eventually(h.T, "the removed endpoint is gone and the other one takes the new type", func() bool {
		st := r.status()
		return len(st.Endpoints) == 2 && r.at("topic").EventTypes[0] == "SpaceChange"
	})
	end()
	for _, e := range r.settled(produced).Endpoints {
		if e.Routed != e.Delivered {
			h.T.Errorf("%s: routed %d, delivered %d, dropped %v", e.Path, e.Routed, e.Delivered, e.Dropped)
		}
	}
	h.arrivedOnce(produced, "hub")
	was := h.Count("topic")
	h.Produce(env.Value(h.Samples()["SpaceChange"]))
	env.Eventually(h.T, "the changed endpoint takes the new type", func() bool { return h.Count("topic") > was })
}

// One bad endpoint hurts only itself; a refused key costs nothing.
func failuresStay(h *harness) {
	const total = 5000
	missing := h.AMQP("ServiceBus", "no-such-topic", "SensorChange")
	h.SetFault(emulator.Fault{RejectKey: "primary"}, "hub", "grid")
	h.refuse("topic")
	h.SetEndpoints(append(h.everyType(), missing)...)
	r := h.run("one", nil)
	h.Produce(h.Events(total)...)
	for _, e := range r.settled(total).Endpoints {
		if e.Routed != total || e.Routed != e.Delivered+dropped(e) {
			h.T.Errorf("%s: routed %d, delivered %d, dropped %v", e.Path, e.Routed, e.Delivered, e.Dropped)
		}
		switch e.Path {
		case "hub", h.Services.EventGridHost("grid"):
			if e.Delivered != total || e.Key != "secondary" || e.State != "ready" {
				h.T.Errorf("%s with its primary key refused: %+v", e.Path, e)
			}
		case "topic":
			if e.Dropped["unauthorized"] == 0 || e.Delivered != 0 || e.State != "backing_off" || e.BackOffUntil == nil {
				h.T.Errorf("both keys refused: %+v", e)
			}
		case "no-such-topic":
			if e.Dropped["unreachable"] == 0 || e.Delivered != 0 || !strings.Contains(e.LastError, "no-such-topic") {
				h.T.Errorf("unknown entity: %+v", e)
			}
		}
	}
	h.arrivedOnce(total, "hub", "grid")
	if !strings.Contains(r.metrics(), `endpoint_type="ServiceBus",event_type="SensorChange",reason="unauthorized"}`) {
		h.T.Error("the metrics don't say which event types were dropped")
	}
	// The keys are right again: the next probe finds out.
	h.Repair("topic")
	env.Eventually(h.T, "the topic recovers", func() bool {
		h.Produce(h.Events(2)...)
		e := r.at("topic")
		return e.State == "ready" && e.Delivered > 0
	})
}

// One partition of a hub fails: only its events are dropped, it is tried ever more
// rarely, and everything says so.
func partitionDown(h *harness) {
	r := h.run("one", nil)
	produced := 0
	feed := func(what string, ok func(hub pipeline.EndpointStatus) bool) (hub pipeline.EndpointStatus) {
		h.T.Helper()
		env.Eventually(h.T, what, func() bool {
			h.Produce(h.Events(80)...)
			produced += 80
			hub = r.at("hub")
			return ok(hub)
		})
		return hub
	}
	feed("all is well", func(hub pipeline.EndpointStatus) bool { return hub.Delivered > 0 })
	r.settled(produced)
	before := produced
	h.SetFault(emulator.Fault{Outcome: emulator.OutcomeRejected, Partitions: []int{1}}, "hub")
	hub := feed("the partition was tried three times", func(hub pipeline.EndpointStatus) bool {
		return hub.State == "degraded" && hub.BackOffUntil != nil && time.Until(*hub.BackOffUntil) > 500*time.Millisecond
	})
	if !slices.Equal(hub.PartitionsBackingOff, []int{1}) || !strings.Contains(hub.LastError, "amqp:internal-error") {
		h.T.Errorf("while it is down: %+v", hub)
	}
	if e := r.endpoint(hub.ID); e.Status != "Ready" || e.Properties["state"] != "degraded" || e.Properties["reason"] != "unreachable" {
		h.T.Errorf("the API says %s, %v", e.Status, e.Properties)
	}
	if line := `twinegress_endpoint_state{endpoint="` + hub.ID + `",state="degraded"} 1`; !strings.Contains(r.metrics(), line) {
		h.T.Errorf("the metrics lack %s", line)
	}
	if !r.logged("part of the endpoint backs off", `"hubPartition":1,"hubPartitions":4`) {
		h.T.Error("the log doesn't name the partition")
	}
	for _, e := range r.settled(produced).Endpoints {
		if e.Routed != e.Delivered+dropped(e) || e.Path == "topic" && e.Delivered != uint64(produced) {
			h.T.Errorf("%s: routed %d, delivered %d, dropped %v", e.Path, e.Routed, e.Delivered, e.Dropped)
		}
	}
	for p, stored := range h.Services.Stats().Entity("hub").Partitions {
		want := produced / 4
		if p == 1 {
			want = before / 4
		}
		if stored.Count < int64(want) || p == 1 && stored.Count > int64(want) {
			h.T.Errorf("partition %d of the hub has %d events, want %d", p, stored.Count, want)
		}
	}
	h.Repair("hub")
	feed("it is ready", func(hub pipeline.EndpointStatus) bool {
		return hub.State == "ready" && h.Services.Stats().Entity("hub").Partitions[1].Count > int64(before/4)
	})
}

// equation checks promise 4 on one status.
func (h *harness) equation(st pipeline.Status) {
	h.T.Helper()
	for _, e := range st.Endpoints {
		if e.Pending < 0 || e.Routed != e.Delivered+dropped(e)+e.Deferred+uint64(e.Pending) {
			h.T.Errorf("%s: routed %d != delivered %d + dropped %v + deferred %d + pending %d",
				e.Path, e.Routed, e.Delivered, e.Dropped, e.Deferred, e.Pending)
		}
	}
}

// Under load, endpoints are created, changed and deleted through the API, and
// services fail and recover. The equation holds at every moment, and every
// event that an endpoint counts as delivered is at its service. One that nobody
// touches gets every event, once.
func conservation(h *harness) {
	const total, steps = 24_000, 40
	h.SetEndpoints(h.Hub("SensorChange"), h.ServiceBus("SensorChange"))
	r := h.run("one", env.Settings{"send.timeout": "1s", "backoff.initial": "20ms", "backoff.max": "80ms"})
	topic, grid := idsByPath(r.status())["topic"], ""
	end := h.repeat(func() { h.equation(r.status()) })
	faults := []emulator.Fault{
		{RejectKey: "primary"},
		{RejectKey: "both"},
		{Cut: emulator.CutDuring, Every: 2},
		{NeverSettle: true, Times: 2},
		{Delay: emulator.Duration(30e6)},
		{Throttle: 1, Times: 1},
		{Outcome: emulator.OutcomeReleased, Every: 3},
	}
	for step := range steps {
		// In step with the intake, so that changes and faults meet events.
		env.Eventually(h.T, "most of what was produced is read", func() bool {
			return r.status().Ingest.Records >= int64(max(step-2, 0)*total/steps)
		})
		h.Produce(h.Events(total / steps)...)
		change := h.ServiceBus("SensorChange")
		if step%2 == 0 {
			change["secondaryConnectionString"] = ""
		}
		if step%3 == 0 {
			change["eventTypes"] = []string{"SpaceChange", "SensorChange"}
		}
		r.manage(http.StatusNoContent, http.MethodPut, "/endpoints/"+topic, change.JSON())
		if step%4 == 1 {
			h.SetFault(faults[step/4%len(faults)], "topic")
		} else if step%4 == 3 {
			h.Repair("topic")
		}
		if step%5 == 1 {
			h.SetFault(emulator.Fault{Status: 503, Every: 2}, "grid")
		} else {
			h.Repair("grid")
		}
		if grid == "" {
			grid = r.create(h.Grid("SensorChange", "UdfCustom"))
		} else {
			r.manage(http.StatusNoContent, http.MethodDelete, "/endpoints/"+grid, nil)
			grid = ""
		}
	}
	h.Repair("topic", "grid")
	st := r.settled(total)
	end()
	h.equation(st)
	if st.Ingest.Events != total {
		h.T.Errorf("%d events, want %d", st.Ingest.Events, total)
	}
	if e := r.at("hub"); e.Routed != total || e.Delivered != total {
		h.T.Errorf("the endpoint that nobody touched: %+v", e)
	}
	h.arrivedOnce(total, "hub")
	// A drop may have been stored: its acknowledgement was lost.
	e, arrived := r.at("topic"), uint64(h.Services.Stats().Entity("topic").Distinct)
	if e.Routed != total || arrived < e.Delivered || arrived > total {
		h.T.Errorf("the topic has %d different events: %+v", arrived, e)
	}
	if e.Delivered == 0 || dropped(e) == 0 {
		h.T.Errorf("delivered %d, dropped %v: the faults did too much, or too little, for this to mean anything", e.Delivered, e.Dropped)
	}
	r.stop()
}

// An endpoint that is slow, but answers, and that takes a tenth of the events:
// its lanes would never fill before as much is in flight as may be, since each
// of its events keeps a whole chunk. It is named all the same; or, where that is
// what its operator wants, loses its own events, and nobody else waits.
func slowOfFew(overflow string) func(*harness) {
	return func(h *harness) {
		const total = 20_000
		// Slower than the test: nothing that it asks depends on when it answers.
		h.SetFault(emulator.Fault{Delay: emulator.Duration(25 * time.Second)}, "hub")
		h.SetEndpoints(h.Hub("UdfCustom").With("overflow", overflow), h.ServiceBus("SensorChange"))
		r := h.run("one", env.Settings{
			"ingest.maxInFlightBytes": "2MiB", "shutdown.timeout": "1s", "send.timeout": "30s",
			"ingest.rebalanceTimeout": "100s",
		})
		records := h.Events(total)
		for i, record := range records {
			if i/int(8)%10 == 0 {
				record.Value = []byte(strings.Replace(string(record.Value), "SensorChange", "UdfCustom", 1))
			}
		}
		h.Produce(records...)
		if overflow == "block" {
			env.Eventually(h.T, "the slow endpoint is named", func() bool {
				st := r.status()
				h.equation(st)
				return r.at("hub").HoldsBack && !r.at("topic").HoldsBack && r.at("topic").Pending == 0
			})
			if slow, fast := r.at("hub"), r.at("topic"); slow.Delivered > 0 || fast.Routed == total/10*9 {
				h.T.Errorf("nothing waits: %+v, %+v", slow, fast)
			}
			return
		}
		env.Eventually(h.T, "the other endpoint has everything", func() bool { return r.at("topic").Delivered == total/10*9 })
		if e := r.at("hub"); e.Delivered > 0 || e.Dropped["overflow"] == 0 || e.HoldsBack {
			h.T.Errorf("%+v: it was to give its events up", e)
		}
	}
}
