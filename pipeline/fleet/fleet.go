// Package fleet shows all copies as one. Each copy says how it is in records of a
// compacted topic, and reads what the others say:
//
//	Run      looks for the topic, and follows it    goroutine 1
//	publish  says how this copy is                  goroutine 2
//	Report   adds up what this copy knows           the caller's
//	Retry    ends a back-off here, and asks the others to
//
// What this copy is it never takes from the topic. Nothing waits for the topic: while
// it can't be read or written, the report has this copy's own truth, the others with
// their age, and a notice that says why.
//
// docs/decisions/0014-fleet.md has the arithmetic of bytes, time and memory.
package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/untrusted"
	"twinegress/pipeline"
	"twinegress/sinks"
)

// Pipeline is the part of the running copy that the fleet shows and controls. It is
// an interface so that a test can have a hundred copies.
type Pipeline interface {
	// Self returns the copy's status without its endpoints. Briefs calls f with each
	// of these, in the order of their ids; what f gets is overwritten.
	Self() pipeline.Status
	Briefs(f func(*sinks.Brief, pipeline.CatchUp))
	Retry(id string) (endpoints.Endpoint, bool)
}

// Options are a Fleet's.
type Options struct {
	Pipeline Pipeline
	Topic    string    // "": each copy by itself
	Group    string    // of Kafka; other groups may share the topic, and are not of this fleet
	Connect  []kgo.Opt // for the brokers
	// FileRefused reports whether the endpoints file can't be taken; nil: there is none.
	FileRefused func() bool
	Log         *zap.Logger
}

// Fleet is this copy among the others.
type Fleet struct {
	options Options
	id      string
	madeAt  time.Time
	client  *kgo.Client  // of Run
	topicID kadm.TopicID // of the topic that is read; Run's
	latest  latest

	mu        sync.Mutex
	endpoints int
	set       hash // of this copy's endpoints, and since when they are these
	setSince  time.Time
	copies    *copies
	position  readPosition
	problem   string // why the topic can't be used; empty if it can
	done      map[string]time.Time
	refusals  refusals
	publisher
}

// New returns this copy of the fleet. Nothing is read or written before Run.
func New(o Options) *Fleet {
	f := &Fleet{
		options: o, madeAt: time.Now(), copies: newCopies(), done: make(map[string]time.Time),
		id: fmt.Sprintf("%s-%08x", legalName(o.Pipeline.Self().Instance), rand.Uint32()),
	}
	if o.Topic == "" {
		return f
	}
	f.problem = "the topic " + o.Topic + " is not read yet"
	return f
}

// ID returns this copy's id.
func (f *Fleet) ID() string { return f.id }

// Run says how this copy is, and reads what the others say, until ctx ends. Then it
// says that this copy is no more.
func (f *Fleet) Run(ctx context.Context) {
	if f.options.Topic == "" {
		return
	}
	client, err := f.connect()
	if err != nil { // the options are those of all other clients
		f.options.Log.Error("BUG: no client for the status topic", zap.Error(err))
		return
	}
	f.client = client
	defer client.Close()
	if !f.awaitTopic(ctx) {
		return
	}
	var publishing sync.WaitGroup
	w := f.newWriter()
	publishing.Go(func() { w.run(ctx) })
	f.follow(ctx)
	publishing.Wait()
	w.goodbye() //nolint:contextcheck // ctx is over
}

// self returns this copy's head, and since when its endpoints are what they are.
func (f *Fleet) self() (h head, setSince time.Time) {
	st := f.options.Pipeline.Self()
	h = head{
		V: version, Instance: st.Instance, Version: st.Version, StartedAt: st.StartedAt, At: time.Now().UTC(),
		Ready: st.Ready, NotReady: st.NotReady, Ingest: st.Ingest,
		FileRefused: f.options.FileRefused != nil && f.options.FileRefused(),
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	h.Endpoints, h.Set = f.endpoints, uint64(f.set)
	return h, f.setSince
}

// setEndpoints records what this copy's endpoints are: those that copies must have in
// common.
func (f *Fleet) setEndpoints(n int, set hash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.set != set {
		f.set, f.setSince = set, time.Now()
	}
	f.endpoints = n
}

// addEndpoint adds an endpoint of this copy to a hash.
func (h *hash) addEndpoint(e *endpoints.Endpoint) {
	h.add(e.ID)
	h.add(string(e.Type))
	h.add(e.Path)
	h.add(e.Filter)
	for _, word := range e.EventTypes {
		h.add(word)
	}
}

// hash is FNV-1a, which is the same in every copy.
type hash uint64

func newHash() hash { return 14695981039346656037 }

func (h *hash) add(s string) {
	for i := range len(s) {
		*h = (*h ^ hash(s[i])) * 1099511628211
	}
	*h = (*h ^ 0xff) * 1099511628211 // where it ends
}

// Report returns the state of all copies as this one knows it. Who asks must not
// change it: others have the same.
func (f *Fleet) Report() *Report { return f.latest.of(f.report) }

func (f *Fleet) report() *Report {
	now := time.Now()
	b := newBuilder(now)
	set, n := newHash(), 0
	f.options.Pipeline.Briefs(func(brief *sinks.Brief, c pipeline.CatchUp) {
		var e entry
		if e.set(brief, &c) {
			b.addEntry(f.id, &e, &identity{brief.Endpoint, brief.Host, brief.LastError, e.lastErrorAt})
		}
		set.addEndpoint(&brief.Endpoint)
		n++
	})
	f.setEndpoints(n, set)
	h, setSince := f.self()
	own := copyFrom(f.id, h, now, setSince, now)
	own.Self = true
	b.addCopy(own)
	f.mu.Lock()
	b.report.Notice, b.report.blind = f.notice(now)
	f.mu.Unlock()
	for _, one := range f.others() {
		c := copyFrom(one.id, one.head, one.heardAt, one.setSince, now)
		c.Stale = one.stale(now)
		b.addCopy(c)
		if c.Stale {
			continue
		}
		for _, block := range one.blocks {
			if block != nil {
				_ = eachEntry(block, func(e *entry) { b.addEntry(one.id, e, nil) }) // it was checked as it came
			}
		}
	}
	return b.build()
}

// others returns the other copies. Blocks are replaced, never
// changed, so they are read without the lock.
func (f *Fleet) others() (all []other) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.copies.ids() {
		if one := f.copies.all[id]; one.head.V != 0 {
			all = append(all, other{id, *one})
		}
	}
	return all
}

type other struct {
	id string
	copyOf
}

const othersUnknown = "other copies are not known: "

// notice says why the others are not known, or not as they are; blind reports whether
// it is so of all of them, and should not be. f.mu is held.
func (f *Fleet) notice(now time.Time) (text string, blind bool) {
	switch {
	case f.options.Topic == "":
		return "this copy knows itself only: status.topic is empty", false
	case f.problem != "":
		return othersUnknown + f.problem, true
	case !f.position.caughtUp:
		return "other copies are not known yet: the topic " + f.options.Topic + " is being read", true
	case now.Sub(f.position.echoedAt) > staleAfter:
		text = "what this copy says doesn't come back from the topic " + f.options.Topic + ", so what it has of the others may be old"
		if f.failure != "" {
			text += ": " + f.failure
		}
		return text, true
	case now.Sub(f.refusals.last) < sayAgain:
		return "a record of the topic " + f.options.Topic + " was not taken: " + f.refusals.why, false
	}
	return "", false
}

// Retry ends an endpoint's back-off on this copy, and asks the others to. It returns
// how many copies that are, this one included, and why the others may not hear of it.
func (f *Fleet) Retry(ctx context.Context, endpoint string) (known int, notice string) {
	f.options.Pipeline.Retry(endpoint)
	now := time.Now()
	f.mu.Lock()
	live, _, _ := f.copies.count(now)
	known = 1 + live
	notice, _ = f.notice(now)
	usable := f.problem == "" // f.client is there
	f.mu.Unlock()
	if f.options.Topic == "" || !usable {
		return 1, notice
	}
	c := command{
		V: version, ID: fmt.Sprintf("%016x", rand.Uint64()), At: now.UTC(), Retry: endpoint,
		Instance: f.options.Pipeline.Self().Instance,
	}
	value, _ := json.Marshal(c) // strings and a time
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	written := make(chan error, 1)
	f.produce(ctx, commandKey(f.id), value, func(err error) { written <- err })
	select {
	case err := <-written:
		if err != nil {
			notice = "the other copies were not asked: " + untrusted.Text(err.Error())
		}
	case <-ctx.Done():
		notice = "the other copies may not be asked: the topic " + f.options.Topic + " doesn't take it"
	}
	return known, notice
}

// commandTimeout bounds how long a caller of Retry waits for the topic.
const commandTimeout = 3 * time.Second
