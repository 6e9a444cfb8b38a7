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
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/untrusted"
	"twinegress/pipeline"
)

// Pipeline is the part of the running copy that the fleet shows and controls. It is
// an interface so that a test can have a hundred copies.
type Pipeline interface {
	Status() pipeline.Status
	Retry(id string)
}

// Options are a Fleet's.
type Options struct {
	Pipeline Pipeline
	Topic    string    // "": each copy by itself
	Connect  []kgo.Opt // for the brokers
	Log      *zap.Logger
}

// Fleet is this copy among the others.
type Fleet struct {
	options Options
	id      string
	client  *kgo.Client // nil without a topic

	mu       sync.Mutex
	copies   *copies
	position readPosition
	problem  string // why the topic can't be used; empty if it can
	done     map[string]time.Time
	refused  uint64 // records of others that are not taken
	publisher
}

// New returns this copy of the fleet. Nothing is read or written before Run.
func New(o Options) (*Fleet, error) {
	st := o.Pipeline.Status()
	f := &Fleet{
		options: o, copies: newCopies(), done: make(map[string]time.Time),
		id: fmt.Sprintf("%s-%08x", legalName(st.Instance), rand.Uint32()),
	}
	if o.Topic == "" {
		return f, nil
	}
	f.problem = "the topic " + o.Topic + " is not read yet"
	client, err := f.connect()
	f.client = client
	return f, err
}

// ID returns this copy's id.
func (f *Fleet) ID() string { return f.id }

// Run says how this copy is, and reads what the others say, until ctx ends. Then it
// says that this copy is no more.
func (f *Fleet) Run(ctx context.Context) {
	if f.client == nil {
		return
	}
	defer f.client.Close()
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

// self returns this copy's head, of a status.
func (f *Fleet) self(st *pipeline.Status) head {
	set := fnv.New64a()
	for i := range st.Endpoints {
		set.Write([]byte(st.Endpoints[i].ID)) //nolint:errcheck // it can't fail
	}
	return head{
		V: version, Instance: st.Instance, Version: st.Version, StartedAt: st.StartedAt, At: time.Now().UTC(),
		Ready: st.Ready, NotReady: st.NotReady, Ingest: st.Ingest,
		Endpoints: len(st.Endpoints), Set: set.Sum64(),
	}
}

// Report returns the state of all copies as this one knows it.
func (f *Fleet) Report() *Report {
	st := f.options.Pipeline.Status()
	now := time.Now()
	b := newBuilder(now)
	own := copyFrom(f.id, f.self(&st), now, now)
	own.Self = true
	b.addCopy(own)
	for i := range st.Endpoints {
		if e, ok := entryOf(&st.Endpoints[i]); ok {
			b.addEntry(f.id, &e, &st.Endpoints[i])
		}
	}
	others, notice := f.others(now)
	b.report.Notice = notice
	for i := range others {
		one := &others[i]
		c := copyFrom(one.id, one.head, one.heardAt, now)
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

// others returns the other copies as they are now. Blocks are replaced, never
// changed, so they are read without the lock.
func (f *Fleet) others(now time.Time) (all []other, notice string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range f.copies.ids() {
		if one := f.copies.all[id]; one.head.V != 0 {
			all = append(all, other{id, *one})
		}
	}
	return all, f.notice(now)
}

type other struct {
	id string
	copyOf
}

// notice says why the others are not known, or not as they are.
func (f *Fleet) notice(now time.Time) string {
	switch {
	case f.client == nil:
		return "this copy knows itself only: status.topic is empty"
	case f.problem != "":
		return "other copies are not known: " + f.problem
	case f.position.echoedAt.IsZero() || now.Sub(f.position.echoedAt) > staleAfter:
		notice := "the others may be otherwise by now: this copy's own words don't come back from the topic " + f.options.Topic
		if f.failure != "" {
			notice += ": " + f.failure
		}
		return notice
	}
	return ""
}

// Retry ends an endpoint's back-off on this copy, and asks the others to. It returns
// how many copies that are, this one included, and why the others may not hear of it.
func (f *Fleet) Retry(ctx context.Context, endpoint string) (known int, notice string) {
	f.options.Pipeline.Retry(endpoint)
	now := time.Now()
	f.mu.Lock()
	known, notice = 1+f.copies.live(now), f.notice(now)
	f.mu.Unlock()
	if f.client == nil || f.problemNow() != "" {
		return 1, notice
	}
	c := command{
		V: version, ID: fmt.Sprintf("%016x", rand.Uint64()), At: now.UTC(), Retry: endpoint,
		Instance: f.options.Pipeline.Status().Instance,
	}
	value, _ := json.Marshal(c) // strings and a time
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	err := f.client.ProduceSync(ctx, &kgo.Record{Topic: f.options.Topic, Key: []byte(commandKey(f.id)), Value: value}).FirstErr()
	if err != nil {
		notice = "the other copies were not asked: " + untrusted.Text(err.Error())
	}
	return known, notice
}

// commandTimeout bounds how long a caller of Retry waits for the topic.
const commandTimeout = 3 * time.Second

func (f *Fleet) problemNow() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.problem
}
