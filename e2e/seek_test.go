package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"twinegress/e2e/env"
	"twinegress/server/api"
)

// Endpoints are paused and resumed under load. The one that catches up goes on where it
// was; the other one's events are dropped meanwhile, and counted.
func pausedAndResumed(h *harness) {
	b := h.behind(2, nil)
	put := func(e env.Endpoint) {
		h.T.Helper()
		sum, _ := b.of(e.Text("name"))
		b.copies[0].manage(http.StatusNoContent, http.MethodPut, "/endpoints/"+sum.ID, e.JSON())
	}
	hub, topic := h.Hub("SensorChange").With("recovery", "catchUp"), h.ServiceBus("SensorChange")
	put(hub.With("enabled", false))
	put(topic.With("enabled", false))
	env.Eventually(h.T, "hub is behind and topic drops", func() bool {
		at, ok := b.of("hub")
		dropping, _ := b.of("topic")
		return ok && at.Backlog > 2*behindRate && dropping.Dropped["stopped"] > behindRate
	})
	for _, name := range []string{"hub", "topic"} {
		for _, r := range b.copies {
			if e := r.standings()[name]; e.State != "stopped" {
				h.T.Errorf("%s is %s on %s, want stopped", name, e.State, r.name)
			}
		}
		e, _ := b.of(name)
		if got := b.copies[1].endpoint(e.ID).Status; got != "Stopped" {
			h.T.Errorf("the API says that %s is %s", name, got)
		}
	}
	b.load.flows("the one that isn't paused gets everything", "grid")
	put(hub)
	put(topic)
	env.Eventually(h.T, "hub has joined", func() bool { return b.live("hub") })
	reached := h.Count("topic")
	env.Eventually(h.T, "topic is sent to again", func() bool { return h.Count("topic") > reached })
	b.load.pause()
	b.load.flows("hub has everything", "hub", "grid")
	h.allCommitted(b.copies...)
	for _, name := range everywhere {
		env.Eventually(h.T, name+" is live", func() bool { return b.live(name) })
		e, _ := b.of(name)
		lost := 0
		if name == "topic" {
			lost = int(e.Dropped["stopped"])
		}
		want := env.Summary{Arrivals: int(b.load.total()) - lost, Lost: lost}
		if s := h.Ledger.Take(name, nil); s != want || dropped(e) != uint64(lost) {
			h.T.Errorf("%s: %+v, want %+v; dropped %v", name, s, want, e.Dropped)
		}
	}
}

// seekTo is the body of a seek.
func seekTo(to string) []byte { return fmt.Appendf(nil, `{"to":%q}`, to) }

// seek orders a seek, once the one before is over, and returns what the API answers.
func (r *replica) seek(id, to string) (reply string) {
	r.t.Helper()
	env.Eventually(r.t, "a seek to "+to, func() bool {
		a, err := r.call(r.t.Context(), http.MethodPost, "/endpoints/"+id+"/seek", seekTo(to))
		if err != nil || a.status != http.StatusAccepted && a.status != http.StatusConflict {
			r.t.Fatalf("a seek to %s: %v, %d: %s", to, err, a.status, a.body)
		}
		reply = string(a.body)
		return a.status == http.StatusAccepted
	})
	return reply
}

// sequence returns the offsets that an entity has recorded after so many messages, for
// each Kafka partition in the order of arrival.
func (h *harness) sequence(entity string, after int) map[int32][]int64 {
	h.T.Helper()
	got := make(map[int32][]int64)
	messages := h.Services.Messages(entity)
	for _, m := range messages[min(after, len(messages)):] {
		place := strings.Split(strings.TrimPrefix(m.MessageID, h.Topic+"/"), "/")
		p, err := strconv.ParseInt(place[0], 10, 32)
		h.Must(err)
		offset, err := strconv.ParseInt(place[1], 10, 64)
		h.Must(err)
		got[int32(p)] = append(got[int32(p)], offset)
	}
	return got
}

// stretch is so many events for each of the partitions, from an offset on.
func stretch(partitions int, from, to int64) map[int32][]int64 {
	all := make(map[int32][]int64)
	for p := range int32(partitions) {
		for o := from; o < to; o++ {
			all[p] = append(all[p], o)
		}
	}
	return all
}

func sameSequence(a, b map[int32][]int64) bool {
	return maps.EqualFunc(a, b, slices.Equal[[]int64])
}

// lots are two lots of events, an hour apart by their timestamps.
type lots struct {
	partitions, first, second int
	between                   time.Time
}

// produceLots produces them.
func (h *harness) produceLots(partitions int) lots {
	h.T.Helper()
	l := lots{partitions: partitions, first: 200 * partitions, second: 150 * partitions, between: time.Now().Add(-90 * time.Minute).Truncate(time.Second)}
	records := h.Events(l.first + l.second)
	for i, r := range records {
		r.Timestamp = l.between.Add(-30 * time.Minute)
		if i >= l.first {
			r.Timestamp = l.between.Add(30 * time.Minute)
		}
	}
	h.Produce(records...)
	return l
}

func (l lots) total() int { return l.first + l.second }

// A seek sends an endpoint again what Kafka has from there on: exactly that, in order,
// and to nobody else.
func seeks(recovery string) func(*harness) {
	return func(h *harness) {
		const partitions = 4
		h.SetEndpoints(h.Hub("SensorChange").With("recovery", recovery), h.ServiceBus("SensorChange"))
		f := &fleet{h: h, partitions: partitions}
		f.grow(2, func(string) env.Settings { return nil })
		f.awaitShares(true)
		l := h.produceLots(partitions)
		h.AwaitCommitted()
		h.arrivedOnce(l.total(), "hub", "topic")
		hub, _ := f.of("hub")
		again := func(to string, from, events int) {
			h.T.Helper()
			before := h.Count("hub")
			reply := f.copies[1].seek(hub.ID, to)
			if !strings.Contains(reply, "seekTo") {
				h.T.Errorf("the answer to a seek: %s", reply)
			}
			env.Eventually(h.T, "everything since "+to+" has arrived again", func() bool { return h.Count("hub") >= before+events })
			env.Eventually(h.T, "hub is live after "+to, func() bool { return f.live("hub") })
			h.AwaitCommitted()
			want := stretch(partitions, int64(from/partitions), int64(l.total()/partitions))
			if got := h.sequence("hub", before); !sameSequence(got, want) {
				h.T.Errorf("after a seek to %s: %s", to, differing(got, want))
			}
		}
		again("earliest", 0, l.total())
		again(l.between.UTC().Format(time.RFC3339), l.first, l.second)
		again("earliest", 0, l.total())

		// To where it is: nothing is sent again, and it goes on.
		before := h.Count("hub")
		f.copies[0].seek(hub.ID, "latest")
		h.Produce(h.Events(2 * partitions)...)
		env.Eventually(h.T, "what comes after a seek to the latest arrives", func() bool { return h.Count("hub") >= before+2*partitions })
		env.Eventually(h.T, "hub is live", func() bool { return f.live("hub") })
		each := int64(l.total() / partitions)
		if got, want := h.sequence("hub", before), stretch(partitions, each, each+2); !sameSequence(got, want) {
			h.T.Errorf("after a seek to the latest: %s", differing(got, want))
		}
		h.arrivedOnce(2*partitions, "topic")
		e, _ := f.of("hub")
		if dropped(e) > 0 {
			h.T.Errorf("dropped %v", e.Dropped)
		}
	}
}

func differing(got, want map[int32][]int64) string {
	var b strings.Builder
	for p := range want {
		if g, w := got[p], want[p]; !slices.Equal(g, w) {
			i := 0
			for i < min(len(g), len(w)) && g[i] == w[i] {
				i++
			}
			fmt.Fprintf(&b, "partition %d has %d events, want %d (%d to %d); from the %dth on: %v; ", p, len(g), len(w), w[0], w[len(w)-1], i, g[i:min(i+5, len(g))])
		}
	}
	return b.String()
}

// A seek is cancelled before anything was sent: the endpoint goes on where it was. A
// second one meanwhile is refused.
func seekCancelled(h *harness) {
	const partitions, more = 2, 8
	hub := h.Hub("SensorChange").With("recovery", "catchUp")
	h.SetEndpoints(hub, h.ServiceBus("SensorChange"))
	f := &fleet{h: h, partitions: partitions}
	f.grow(1, func(string) env.Settings { return nil })
	l := h.produceLots(partitions)
	h.AwaitCommitted()
	h.arrivedOnce(l.total(), "hub", "topic")
	r, at := f.copies[0], "/endpoints/"+f.copies[0].standings()["hub"].ID
	r.manage(http.StatusNoContent, http.MethodPut, at, hub.With("enabled", false).JSON())
	env.Eventually(h.T, "hub is paused", func() bool { return r.standings()["hub"].State == "stopped" })
	h.Produce(h.Events(more)...)
	backlog := func(what string, n int) {
		h.T.Helper()
		env.Eventually(h.T, what, func() bool { return r.standings()["hub"].Backlog == int64(n) })
	}
	backlog("hub is behind", more)
	r.manage(http.StatusAccepted, http.MethodPost, at+"/seek", seekTo("earliest"))
	backlog("the seek is in force", l.total()+more)
	r.manage(http.StatusConflict, http.MethodPost, at+"/seek", seekTo("earliest"))
	r.manage(http.StatusAccepted, http.MethodPost, at+"/seek", seekTo("cancel"))
	backlog("it is where it was", more)
	r.manage(http.StatusNoContent, http.MethodPut, at, hub.JSON())
	env.Eventually(h.T, "hub is live", func() bool { return f.live("hub") })
	h.AwaitCommitted()
	h.arrivedOnce(more, "hub", "topic")
}

// A new endpoint starts in the past, and goes on with what comes.
func startsInThePast(h *harness) {
	const partitions = 4
	h.SetEndpoints(h.ServiceBus("SensorChange"))
	f := &fleet{h: h, partitions: partitions}
	f.grow(2, func(string) env.Settings { return nil })
	f.awaitShares(true)
	l := h.produceLots(partitions)
	h.AwaitCommitted()
	all := f.copies[0].create(h.Hub("SensorChange").With("startAt", "earliest"))
	some := f.copies[1].create(h.AMQP("EventHub", "devices", "SensorChange").
		With("startAt", l.between.UTC().Format(time.RFC3339)).With("recovery", "catchUp"))
	f.copies[0].create(h.Grid("SensorChange").With("startAt", "now"))
	env.Eventually(h.T, "the new endpoints have what was there", func() bool {
		return h.Count("hub") >= l.total() && h.Count("devices") >= l.second
	})
	for _, r := range f.copies {
		r.routed(4)
	}
	const more = 8 * partitions
	h.Produce(h.Events(more)...)
	h.AwaitCommitted()
	for entity, from := range map[string]int{"hub": 0, "devices": l.first} {
		env.Eventually(h.T, entity+" is live", func() bool { return f.live(entity) })
		want := stretch(partitions, int64(from/partitions), int64((l.total()+more)/partitions))
		if got := h.sequence(entity, 0); !sameSequence(got, want) {
			h.T.Errorf("%s: %s", entity, differing(got, want))
		}
	}
	if n := h.Ledger.Count("grid"); n != more {
		h.T.Errorf("an endpoint that starts now got %d events, want %d", n, more)
	}
	h.arrivedOnce(l.total()+more, "topic")
	for _, id := range []string{all, some} {
		if e := f.copies[0].endpoint(id); e.Status != api.StatusReady {
			h.T.Errorf("%s is %s", e.Path, e.Status)
		}
	}
}

// Endpoints are deleted while they are behind: nothing lists them any more, and one that
// is made anew in their place starts with what comes.
func deletedBehind(h *harness) {
	b := h.behind(2, nil)
	b.leave(behindRate)
	for _, name := range leavers {
		e, _ := b.of(name)
		b.copies[0].manage(http.StatusNoContent, http.MethodDelete, "/endpoints/"+e.ID, nil)
		b.copies[1].gone(e.ID)
	}
	h.Repair(leavers...)
	env.Eventually(h.T, "no commit lists an endpoint", func() bool { return slices.Equal(h.lists(), b.unlisted) })
	was := h.Count("hub")
	b.load.pause()
	b.load.flows("the endpoint that stays gets everything", "topic")
	h.allCommitted(b.copies...)
	if n := h.Count("hub"); n != was {
		h.T.Errorf("%d events arrived at the hub after its endpoint was deleted", n-was)
	}
	from := b.load.total()
	b.copies[0].create(h.Hub("SensorChange").With("recovery", "catchUp"))
	for _, r := range b.copies {
		r.routed(2)
	}
	b.load.resume()
	env.Eventually(h.T, "the new endpoint gets events", func() bool { return h.Count("hub") > was+behindRate })
	b.load.pause()
	b.load.flows("topic gets everything", "topic")
	h.allCommitted(b.copies...)
	env.Eventually(h.T, "hub is live", func() bool { return b.live("hub") })
	if got, want := h.Count("hub")-was, int(b.load.total()-from); got != want {
		h.T.Errorf("the new endpoint got %d events, want the %d since it is there", got, want)
	}
	if s := h.Ledger.Take("topic", nil); s.Lost+s.Reordered+s.Repeats > 0 {
		h.T.Errorf("the endpoint that stays: %+v", s)
	}
}

// gone blocks until a copy doesn't know an endpoint any more.
func (r *replica) gone(id string) {
	r.t.Helper()
	env.Eventually(r.t, r.name+" doesn't know the endpoint", func() bool {
		a, err := r.get(&r.api, "/endpoints/"+id)
		return err == nil && a.status == http.StatusNotFound
	})
}
