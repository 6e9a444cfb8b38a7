package sinktest

import (
	"context"
	"regexp"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/sinks/entra"
)

// rig is a sender with a real service behind it and a dispatcher before it.
type rig struct {
	t       *testing.T
	service Service
	cell    cell
	keys    emulator.KeyPair
	cause   *regexp.Regexp

	emulator *emulator.Emulator
	impostor *emulator.Emulator // on its address, with a certificate of another CA
	*sinks.Sender
	kept       bool // Options.KeepDropped
	letters    letters
	credential credential
	logs       *observer.ObservedLogs

	next map[int32]int64
	sent map[eventID]string // all that was dispatched, with the text in it

	mu         sync.Mutex
	unsettled  int
	lastErrors map[string]bool // all that were seen
}

// letters are the dead letters, stored at once.
type letters struct {
	mu  sync.Mutex
	got map[eventID]letter
}

type letter struct {
	reason event.Reason
	detail string
}

func (l *letters) Put(ev *event.Event, reason event.Reason, detail, _ string) {
	l.mu.Lock()
	l.got[eventID{ev.Chunk.Partition, ev.Record.Offset}] = letter{reason, detail}
	l.mu.Unlock()
	ev.Chunk.Settle(1)
}

func (l *letters) copied() map[eventID]letter {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := make(map[eventID]letter, len(l.got))
	for id, one := range l.got {
		got[id] = one
	}
	return got
}

// newRig starts the service and makes the sender. Dead letters of what is
// dropped for the endpoint's sake are kept where each event's outcome has to
// be known, which is half of the cells: the other half runs without.
func newRig(t *testing.T, s Service, c cell, keepDropped bool) *rig {
	r := &rig{
		t: t, service: s, cell: c, kept: keepDropped,
		keys:    emulator.KeyPair{Primary: "cHJpbWFyeStrZXkvb2YvdGhlL3N1aXRlPz8/Pz4+Pj4=", Secondary: "c2Vjb25kYXJ5K2tleS9vZi90aGUvc3VpdGU/Pz8+Pj4="},
		cause:   regexp.MustCompile(c.cause),
		letters: letters{got: make(map[eventID]letter)},
		next:    make(map[int32]int64), sent: make(map[eventID]string), lastErrors: make(map[string]bool),
	}
	r.emulator = s.start(t, r.keys, func(e *emulator.Config) {
		e.AMQPTLS = c.tls || c.identity // a token never travels in plain text
		e.BearerToken = bearerToken
	})
	core, logs := observer.New(zapcore.DebugLevel)
	r.logs = logs
	o := options
	o.KeepDropped = keepDropped
	endpoint := s.endpoint(r.emulator)
	switch {
	case c.oneKey:
		endpoint.SecondaryConnectionString = ""
	case c.identity:
		endpoint = s.withIdentity(endpoint, r.emulator)
	}
	r.credential.scope = s.scope()
	open := s.Opener(rootsOf(r.emulator), entra.Of(&r.credential))
	r.Sender = sinks.NewSender(endpoint, o, open, &r.letters, zap.New(core))
	return r
}

// watch looks at the sender all the while, until the function that comes back is called.
func (r *rig) watch() (stop func()) {
	over := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for {
			r.snapshot()
			select {
			case <-tick.C:
			case <-over:
				return
			}
		}
	})
	return func() {
		close(over)
		watching.Wait()
	}
}

// snapshot checks the equation, always.
func (r *rig) snapshot() sinks.Snapshot {
	snap := r.Snapshot()
	c := &snap.Counts
	if c.Pending < 0 || c.Routed != c.Delivered+c.DroppedTotal()+uint64(c.Pending) {
		r.t.Errorf("routed %d != delivered %d + dropped %v + pending %d", c.Routed, c.Delivered, c.Dropped, c.Pending)
	}
	r.mu.Lock()
	r.lastErrors[snap.LastError] = true
	r.mu.Unlock()
	return snap
}

// put dispatches one chunk with an event for each text, as the pipeline does.
func (r *rig) put(partition int32, texts ...string) {
	once := false
	r.mu.Lock()
	r.unsettled++
	r.mu.Unlock()
	c := event.NewChunk("twins", partition, len(texts), 0, func(c *event.Chunk) {
		r.mu.Lock()
		if once {
			r.t.Error("a chunk was settled twice")
		}
		once = true
		r.unsettled--
		r.mu.Unlock()
		c.Free()
	})
	for _, text := range texts {
		offset := r.next[partition]
		r.next[partition]++
		r.sent[eventID{partition, offset}] = text
		c.Add(offset, time.Now().UnixMilli(), 0, nil, body(partition, offset, text))
	}
	typed(c)
	for i := range c.Events {
		r.Stage(&c.Events[i])
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Enqueue(ctx, c); err != nil {
		r.t.Errorf("Enqueue: %v", err)
		return
	}
	c.Settle(1)
}

// await polls until ok says so of a snapshot, and gives that one.
func (r *rig) await(what string, ok func(sinks.Snapshot) bool) sinks.Snapshot {
	r.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		snap := r.snapshot()
		if ok(snap) {
			return snap
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("waited in vain until %s: state %s, delivered %d, dropped %v, pending %d, last error %q",
				what, snap.State, snap.Counts.Delivered, snap.Counts.Dropped, snap.Counts.Pending, snap.LastError)
		}
	}
}

// settled waits until every event has its outcome.
func (r *rig) settled() sinks.Snapshot {
	r.t.Helper()
	return r.await("every event has its outcome", func(s sinks.Snapshot) bool { return s.Counts.Pending == 0 })
}

// target is what the fault is to be switched on for.
func (r *rig) target() string {
	if r.cell.whole && !r.service.isGrid() {
		return emulator.Namespace
	}
	return entity
}

// strike switches the fault on.
func (r *rig) strike(times int) {
	r.t.Helper()
	if r.cell.breaks != nil {
		r.cell.breaks(r)
		return
	}
	f := r.cell.fault
	f.Times = times
	if err := r.emulator.SetFault(r.target(), f); err != nil {
		r.t.Fatal(err)
	}
}

// mend switches it off. A port that was given up may be in use for a moment,
// by a connection that the system gave it to.
func (r *rig) mend() {
	r.t.Helper()
	if r.cell.mends != nil {
		r.cell.mends(r)
		return
	}
	r.clear(r.target())
}

func (r *rig) clear(target string) {
	r.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; <-tick.C {
		err := r.emulator.ClearFault(target)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal(err)
		}
	}
}
