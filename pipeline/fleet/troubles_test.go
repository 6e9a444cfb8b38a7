package fleet

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"twinegress/pipeline"
	"twinegress/sinks"
)

// endpoint is one over all copies.
func endpoint(n int, state sinks.State, routed uint64) pipeline.EndpointStatus {
	return pipeline.EndpointStatus{
		ID: idOf(n), Type: "EventHub", Path: "hub", EventTypes: []string{"SensorChange"}, State: state, Key: "primary",
		Routed: routed, Delivered: routed / 2, Pending: int(routed/2 - routed/4),
	}
}

// reported is a report of two live copies and one endpoint, in which nothing is wrong,
// but for what change makes of it.
func reported(change func(*Report)) *Report {
	now := time.Date(2026, 1, 31, 3, 0, 0, 0, time.UTC)
	r := &Report{At: now, Copies: []Copy{
		{ID: "a-1", Instance: "a", Version: "v1", Ready: true, set: 1, setSince: now.Add(-time.Minute)},
		{ID: "b-2", Instance: "b", Version: "v1", Ready: true, set: 1, setSince: now.Add(-time.Minute)},
	}}
	e := endpoint(0, sinks.StateReady, 100)
	e.Name, e.Host, e.StateSince = "sensors", "ns.example", now.Add(-time.Hour)
	r.Endpoints = []EndpointSums{{EndpointStatus: e, Copies: []string{"a-1", "b-2"}}}
	for i := range r.Copies {
		r.Copies[i].Ingest.Lag = new(int64)
	}
	change(r)
	return r
}

type troubleCase struct {
	change func(*Report)
	want   []string
}

// troubleCases are what is wrong, in the words that are shown.
func troubleCases() map[string]troubleCase {
	one := func(change func(*EndpointSums)) func(*Report) {
		return func(r *Report) { change(&r.Endpoints[0]) }
	}
	return map[string]troubleCase{
		"nothing": {func(*Report) {}, nil},
		"a copy is silent": {func(r *Report) { r.Copies[1].Stale, r.Copies[1].AgeSeconds = true, 7.1 }, []string{
			"critical: Copy b has not said anything for 7 s: it was killed, hangs, or doesn't reach Kafka",
		}},
		"this copy is cut off": {func(r *Report) {
			r.blind, r.Notice, r.Copies[1].Stale = true, "the topic status can't be looked at", true
		}, []string{"warning: This copy can't say how the others are: the topic status can't be looked at"}},
		"Kafka is gone": {func(r *Report) {
			r.Copies[0].Ready, r.Copies[0].NotReady = false, []string{"no broker has answered for 50 s", "it is not a member of the group"}
		}, []string{"critical: Copy a is not ready: no broker has answered for 50 s; it is not a member of the group"}},
		"no endpoints": {func(r *Report) { r.Copies[0].Ingest.Waits = true }, []string{"warning: Copy a reads nothing: there is no endpoint"}},
		"lag is not known": {func(r *Report) { r.Copies[0].Ingest.Lag = nil }, []string{
			"warning: Copy a doesn't know how far it is behind: the brokers don't say where its partitions end",
		}},
		"partitions stall": {func(r *Report) { r.Copies[0].Ingest.Stalled = []int32{1, 3} }, []string{
			"critical: Copy a does not read on in partitions 1, 3: something of them has no outcome for long",
		}},
		"dead letters wait": {func(r *Report) {
			r.Copies[0].Ingest.Letters = pipeline.LetterStatus{Waiting: 2, LastError: "NOT_ENOUGH_REPLICAS"}
		}, []string{"critical: Copy a can't store 2 dead letters: NOT_ENOUGH_REPLICAS"}},
		"dead letters are given up": {func(r *Report) {
			r.Copies[0].Ingest.Letters = pipeline.LetterStatus{GivenUp: map[string]uint64{"rejected": 2, "too_large": 1}}
		}, []string{"warning: Copy a has given up 3 dead letters since its start: they can't be stored in any form"}},
		"batches are passed over": {func(r *Report) { r.Copies[0].Ingest.Skipped = 4 }, []string{
			"warning: Copy a has passed over 4 batches since its start, which take too much memory",
		}},
		"the endpoints file is wrong": {func(r *Report) { r.Copies[0].FileRefused = true }, []string{
			"warning: Copy a can't take its endpoints file: the last good endpoints are in force",
		}},
		"versions": {func(r *Report) { r.Copies[0].Version = "v2" }, []string{"warning: Copies run different versions: v1, v2"}},
		"a silent copy's version": {func(r *Report) { r.Copies[1].Version, r.Copies[1].Stale, r.blind = "v2", true, true }, []string{
			"warning: This copy can't say how the others are: ",
		}},
		"different endpoints": {func(r *Report) { r.Copies[1].set = 2 }, []string{
			"critical: Copies have different endpoints: what an event goes to depends on its partition",
		}},
		"different endpoints just now": {func(r *Report) { r.Copies[1].set, r.Copies[1].setSince = 2, r.At.Add(-settling) }, nil},
		"nothing is routed": {func(r *Report) { r.Ingest.Events, r.Ingest.Unrouted = 50, 50 }, []string{
			"critical: None of 50 events has gone anywhere: no endpoint takes them, by its event types and its filter",
		}},
		"something is routed": {func(r *Report) { r.Ingest.Events, r.Ingest.Unrouted = 50, 49 }, nil},
		"backs off": {one(func(e *EndpointSums) { e.State, e.LastError = sinks.StateBackingOff, "both keys are refused" }), []string{
			"critical: sensors (EventHub ns.example/hub) backs off, and its events are dropped: both keys are refused",
		}},
		"probes": {one(func(e *EndpointSums) { e.State, e.LastError = sinks.StateProbing, "no answer" }), []string{
			"critical: sensors (EventHub ns.example/hub) backs off, and its events are dropped: no answer",
		}},
		"a part backs off": {one(func(e *EndpointSums) {
			e.State, e.LastError, e.PartitionsBackingOff = sinks.StateDegraded, "detached (partition 2)", []int{2}
		}), []string{"critical: sensors (EventHub ns.example/hub) backs off in a part, and that part's events are dropped: detached (partition 2)"}},
		"refuses everything": {one(func(e *EndpointSums) {
			e.State, e.LastError, e.Windows.Minute.Dropped = sinks.StateDegraded, sinks.RefusesAll+": 400 Bad Request", 7
		}), []string{
			"critical: sensors (EventHub ns.example/hub) refuses one event after the other, and takes none (7 in the last minute): 400 Bad Request",
		}},
		"throttled, and others wait": {one(func(e *EndpointSums) {
			e.State, e.LastError, e.HoldsBack, e.OldestPending = sinks.StateThrottled, "server busy", true, 7
		}), []string{
			"warning: sensors (EventHub ns.example/hub) is throttled, and holds the others back: 25 wait, the oldest for 7 s: server busy",
		}},
		"slow, and on its secondary key": {one(func(e *EndpointSums) {
			e.Key, e.LastError, e.Reason, e.HoldsBack = "secondary", sinks.PrimaryRefused+": 401", "unauthorized", true
		}), []string{
			"warning: sensors (EventHub ns.example/hub) is slower than its events, and holds the others back: 25 wait, the oldest for 0 s",
			"warning: sensors (EventHub ns.example/hub) runs on its secondary key, as the primary is refused: 401",
		}},
		"slow, after an outage": {one(func(e *EndpointSums) {
			e.LastError, e.Reason, e.HoldsBack, e.OldestPending = "no such host", sinks.ReasonSlow, true, 6
		}), []string{
			"warning: sensors (EventHub ns.example/hub) is slower than its events, and holds the others back: 25 wait, the oldest for 6 s",
		}},
		"copies on one host": {func(r *Report) {
			r.Copies[0].Instance, r.Copies[1].Ready = "b", false
		}, []string{"critical: Copy b-2 is not ready: it doesn't say why"}},
		"throttled": {one(func(e *EndpointSums) { e.State, e.LastError = sinks.StateThrottled, "server busy" }), []string{
			"warning: sensors (EventHub ns.example/hub) is throttled, and its events wait: server busy",
		}},
		"on its secondary key": {one(func(e *EndpointSums) { e.Key = "secondary" }), []string{
			"warning: sensors (EventHub ns.example/hub) runs on its secondary key, as the primary is refused",
		}},
		"slow": {one(func(e *EndpointSums) { e.HoldsBack, e.OldestPending = true, 7.2 }), []string{
			"warning: sensors (EventHub ns.example/hub) is slower than its events, and holds the others back: 25 wait, the oldest for 7 s",
		}},
		"of a later version": {one(func(e *EndpointSums) { e.State = stateUnknown }), []string{
			"warning: sensors (EventHub ns.example/hub) is in a state that this version doesn't know, on a copy of a later one",
		}},
		"never answers": {one(func(e *EndpointSums) { e.State, e.OldestPending = sinks.StateProvisioning, 11 }), []string{
			"warning: sensors (EventHub ns.example/hub) has not answered yet: 25 wait, the oldest for 11 s",
		}},
		"drops events": {one(func(e *EndpointSums) { e.Windows.Minute.Dropped, e.Key = 12, "secondary" }), []string{
			"warning: sensors (EventHub ns.example/hub) has dropped events (12 in the last minute)",
			"warning: sensors (EventHub ns.example/hub) runs on its secondary key, as the primary is refused",
		}},
		"is deleted, with what was left": {one(func(e *EndpointSums) { e.State, e.Windows.Minute.Dropped = sinks.StateDeleting, 12 }), nil},
		"begins":                         {one(func(e *EndpointSums) { e.State, e.OldestPending = sinks.StateProvisioning, 9 }), nil},
		"what it costs": {one(func(e *EndpointSums) { e.State, e.Windows.Minute.Dropped = sinks.StateBackingOff, 30 }), []string{
			"critical: sensors (EventHub ns.example/hub) backs off, and its events are dropped (30 in the last minute)",
		}},
		"an endpoint of others": {one(func(e *EndpointSums) {
			e.EndpointStatus = pipeline.EndpointStatus{ID: e.ID, State: sinks.StateBackingOff}
		}), []string{"critical: An endpoint that this copy doesn't have (" + idOf(0) + ") backs off, and its events are dropped"}},
		"a namespace": {func(r *Report) {
			for i, text := range []string{"no such host", "no such host", "no such host", "key refused for q3"} {
				e := EndpointSums{EndpointStatus: endpoint(i, sinks.StateBackingOff, 1), Copies: []string{"b-2"}}
				e.Host, e.Path, e.Name, e.LastError = "ns", fmt.Sprint("q", i), fmt.Sprint("name", i), fmt.Sprint(text, " (q", i, ")")
				if e.Windows.Minute.Dropped = 10; i == 2 {
					e.LastError += " (partition 3)"
				}
				r.Endpoints = append(r.Endpoints, e)
			}
		}, []string{
			"critical: Each of 3 endpoints at ns backs off, and its events are dropped (30 in the last minute): no such host (…)",
			"critical: name3 (EventHub ns/q3) backs off, and its events are dropped (10 in the last minute): key refused for q3 (q3)",
		}},
		"a namespace in the same words": {func(r *Report) {
			for i := range 3 { // the path is in a word of the error
				e := EndpointSums{EndpointStatus: endpoint(i, sinks.StateBackingOff, 1)}
				e.Host, e.Path, e.LastError = "ns", "no", "no host at ns"
				r.Endpoints = append(r.Endpoints, e)
			}
		}, []string{"critical: Each of 3 endpoints at ns backs off, and its events are dropped: no host at ns"}},
		"behind, and catches up": {one(func(e *EndpointSums) {
			e.State, e.Backlog, e.BehindSince, e.CaughtUpAt = sinks.StateBehind, 12, new(time.Now()), new(time.Now())
		}), nil},
		"backs off, with positions": {one(func(e *EndpointSums) {
			e.State, e.Backlog, e.BehindSince, e.FallsBehind, e.LastError = sinks.StateBackingOff, 12, new(time.Now()), true, "no such host"
		}), []string{"critical: sensors (EventHub ns.example/hub) backs off, and its events are kept in Kafka: no such host"}},
		"a part backs off, with positions": {one(func(e *EndpointSums) {
			e.State, e.PartitionsBackingOff, e.BehindSince = sinks.StateDegraded, []int{2}, new(time.Now())
		}), []string{"critical: sensors (EventHub ns.example/hub) backs off in a part, and that part's events are kept in Kafka"}},
		"falls behind": {one(func(e *EndpointSums) {
			e.State, e.Backlog, e.BehindSince, e.FallsBehind = sinks.StateBehind, 1234, new(time.Now()), true
		}), []string{"warning: sensors (EventHub ns.example/hub) is behind, and does not catch up (1234 offsets)"}},
		"is paused": {one(func(e *EndpointSums) {
			e.State, e.Backlog, e.BehindSince = sinks.StateStopped, 1234, new(time.Now())
		}), nil},
		"half of the retention": {func(r *Report) {
			r.Ingest.Retention = new(7 * 24 * 3600.)
			e := &r.Endpoints[0]
			e.State, e.Backlog, e.BehindSince, e.BacklogOldestAt = sinks.StateBehind, 5, new(r.At), new(r.At.Add(-84*time.Hour))
		}, nil},
		"more than half of the retention": {func(r *Report) {
			r.Ingest.Retention = new(7 * 24 * 3600.)
			e := &r.Endpoints[0] // also of one that is paused
			e.State, e.Backlog, e.BehindSince, e.BacklogOldestAt = sinks.StateStopped, 5, new(r.At), new(r.At.Add(-84*time.Hour-time.Second))
		}, []string{"warning: sensors (EventHub ns.example/hub) has events to get that Kafka has kept for more than half of its retention (5 offsets): the oldest is 4 days old, of 7 days"}},
		"an unknown retention": {one(func(e *EndpointSums) {
			e.State, e.Backlog, e.BehindSince, e.BacklogOldestAt = sinks.StateBehind, 5, new(time.Unix(0, 0)), new(time.Unix(0, 0))
		}), nil},
		"events expired": {one(func(e *EndpointSums) { e.Dropped = map[string]uint64{"expired": 20, "backoff": 3} }), []string{
			"warning: sensors (EventHub ns.example/hub) has missed what Kafka no longer had when it was behind (20 offsets)",
		}},
		"positions are not kept": {func(r *Report) {
			r.Copies[0].Ingest.Positions = []string{"positions can't be stored: TOPIC_AUTHORIZATION_FAILED", "twins/3 is not read"}
		}, []string{
			"warning: Copy a says of the positions of endpoints that are behind: positions can't be stored: TOPIC_AUTHORIZATION_FAILED",
			"warning: Copy a says of the positions of endpoints that are behind: twins/3 is not read",
		}},
		"many fall behind": {func(r *Report) {
			for i := range 3 {
				e := EndpointSums{EndpointStatus: endpoint(i, sinks.StateBehind, 1), Copies: []string{"b-2"}}
				e.Host, e.Path, e.Backlog, e.BehindSince, e.FallsBehind = "ns", fmt.Sprint("q", i), 10, new(r.At), true
				r.Endpoints = append(r.Endpoints, e)
			}
		}, []string{"warning: Each of 3 endpoints at ns is behind, and does not catch up (30 offsets)"}},
		"the worst first": {func(r *Report) {
			r.Copies[0].Version = "v2"
			r.Endpoints[0].State = sinks.StateBackingOff
			r.Copies[1].Ready = false
		}, []string{
			"critical: Copy b is not ready: it doesn't say why",
			"critical: sensors (EventHub ns.example/hub) backs off, and its events are dropped",
			"warning: Copies run different versions: v1, v2",
		}},
	}
}

func TestTroubles(t *testing.T) {
	for name, c := range troubleCases() {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, found := range troubles(reported(c.change)) {
				got = append(got, found.Severity+": "+found.What)
				if found.Action == "" || found.Copies == nil || !slices.Contains(anchors(t), found.Runbook) {
					t.Errorf("no action, copies or runbook: %+v", found)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// anchors returns the sections of the manual, as links name them.
func anchors(t *testing.T) (found []string) {
	t.Helper()
	manual, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(manual), -1) {
		found = append(found, strings.ReplaceAll(strings.ToLower(m[1]), " ", "-"))
	}
	return found
}

// A thousand endpoints that fail in ways of their own are a bounded list.
func TestManyTroubles(t *testing.T) {
	r := reported(func(r *Report) {
		for i := range 1000 {
			e := EndpointSums{EndpointStatus: endpoint(i, sinks.StateBackingOff, 1)}
			e.LastError = fmt.Sprint("error ", i)
			r.Endpoints = append(r.Endpoints, e)
		}
	})
	found := troubles(r)
	if n := len(found); n != maxTroubles+1 || found[n-1].What != "900 more troubles are not listed" {
		t.Errorf("%d troubles, %+v", n, found[n-1])
	}
}
