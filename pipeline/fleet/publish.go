package fleet

import (
	"bytes"
	"cmp"
	"context"
	"hash/maphash"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/untrusted"
	"twinegress/pipeline"
	"twinegress/sinks"
)

const (
	// topicRate is how many bytes a second all copies together put on the topic, in
	// blocks, and so what each of them reads. minRate and maxRate bound a copy's share.
	topicRate        = 512 << 10
	minRate, maxRate = 4 << 10, 128 << 10
	// burst is what a copy may put on it at once, when much changes.
	burst = 256 << 10
	// refreshAfter is when a block that has not changed is written again, for who
	// missed it.
	refreshAfter = 10 * time.Minute
	// goodbyeTimeout bounds how long a stop waits for the topic.
	goodbyeTimeout = 2 * time.Second
	// walkInterval is how much longer, for each endpoint, it takes until all are
	// looked at again.
	walkInterval = 400 * time.Microsecond
)

// publisher is what is known of this copy's own records. Its fields are under
// Fleet.mu.
type publisher struct {
	failures uint64       // records that could not be written
	failure  string       // of the last one; empty if the last was written
	saying   bool         // a head is on its way
	lost     [blocks]bool // that could not be written
	buried   [blocks]bool // that are not in the topic any more
}

// published is a block as it was written last.
type published struct {
	hash    uint64 // of its bytes
	urgent  uint64 // of its endpoints' states
	at      time.Time
	written bool
}

// writer writes this copy's records. Only the publishing goroutine uses it.
type writer struct {
	fleet  *Fleet
	seed   maphash.Seed
	last   [blocks]published
	tokens float64
	at     time.Time

	// Of the last walk over all endpoints. The bytes are used again.
	blocks   [blocks][]byte
	urgent   [blocks]uint64
	scratch  []byte
	walkedAt time.Time
	interval time.Duration // until the next one
}

func (f *Fleet) newWriter() *writer {
	return &writer{fleet: f, seed: maphash.MakeSeed(), tokens: burst, at: time.Now()}
}

// run says how this copy is, at each heartbeat, until ctx ends.
func (w *writer) run(ctx context.Context) {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		w.publish(ctx)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *writer) publish(ctx context.Context) {
	f := w.fleet
	now := time.Now()
	if w.walkedAt.IsZero() || now.Sub(w.walkedAt) >= w.interval {
		w.walk(now)
	}
	own, _ := f.self()
	f.mu.Lock()
	saying := f.saying
	live, _, _ := f.copies.count(now)
	gone := f.copies.forgotten(now, own)
	f.saying = true
	f.mu.Unlock()
	if saying { // the brokers don't answer: nothing more is put on top
		return
	}
	value, err := own.encode()
	if err != nil || len(value) > maxHead {
		f.options.Log.Error("BUG: this copy's state can't be written", zap.Int("bytes", len(value)), zap.Error(err))
		value = nil
	}
	f.produce(ctx, headKey(f.id), value, func(error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.saying = false
	})
	for id, one := range gone {
		f.bury(ctx, id, one)
	}
	w.writeBlocks(ctx, now, live)
}

// change is a block that is not as it was written.
type change struct {
	published
	block  int
	value  []byte
	states bool // of an endpoint's state, not only of counts
}

// writeBlocks writes what has changed: states first, then what was not written for
// longest, until this copy's share of bytes is used up.
func (w *writer) writeBlocks(ctx context.Context, now time.Time, others int) {
	rate := float64(max(minRate, min(maxRate, topicRate/(1+others))))
	w.tokens = min(burst, w.tokens+rate*now.Sub(w.at).Seconds())
	w.at = now
	for _, c := range w.changes(now) {
		if w.tokens <= 0 {
			return
		}
		w.tokens -= float64(len(c.value) + 80) // with its key
		c.at, c.written = now, c.value != nil
		w.last[c.block] = c.published
		w.fleet.produce(ctx, blockKey(w.fleet.id, c.block), bytes.Clone(c.value), func(err error) {
			if err != nil {
				w.fleet.mu.Lock()
				defer w.fleet.mu.Unlock()
				w.fleet.lost[c.block] = true
			}
		})
	}
}

// walk looks at all endpoints. Each costs 1 to 2 µs, so with any number of them that
// is half a percent of a core at most; up to 3,750 it is done at each heartbeat.
func (w *writer) walk(now time.Time) {
	for n := range w.blocks {
		w.blocks[n], w.urgent[n] = w.blocks[n][:0], 0
	}
	set, n := newHash(), 0
	w.fleet.options.Pipeline.Briefs(func(b *sinks.Brief, c pipeline.CatchUp) {
		var e entry
		if e.set(b, &c) {
			i := blockOf(e.id)
			w.blocks[i], w.scratch = appendEntry(w.blocks[i], &e, w.scratch)
			w.urgent[i] = w.urgent[i]*31 + e.urgent()
		}
		set.addEndpoint(&b.Endpoint)
		n++
	})
	w.fleet.setEndpoints(n, set)
	w.walkedAt, w.interval = now, max(heartbeat/2, time.Duration(n)*walkInterval)
}

func (w *writer) changes(now time.Time) []change {
	w.fleet.mu.Lock()
	lost, buried := w.fleet.lost, w.fleet.buried
	clear(w.fleet.lost[:])
	clear(w.fleet.buried[:])
	w.fleet.mu.Unlock()
	var changes []change
	for n, value := range w.blocks {
		if lost[n] || buried[n] && len(value) > 0 { // else it was this copy that took it out
			w.last[n] = published{at: w.last[n].at, written: true, hash: 1}
		}
		before := w.last[n]
		c := change{block: n, value: value, published: published{urgent: w.urgent[n], at: before.at}}
		if len(value) > 0 {
			c.hash = maphash.Bytes(w.seed, value)
		} else {
			c.value = nil
		}
		c.states = c.urgent != before.urgent
		if c.hash != before.hash || before.written && now.Sub(before.at) > refreshAfter {
			changes = append(changes, c)
		}
	}
	slices.SortFunc(changes, func(a, b change) int {
		if a.states != b.states {
			if a.states {
				return -1
			}
			return 1
		}
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.block, b.block))
	})
	return changes
}

// produce writes a record, nil for a tombstone, without waiting for it.
func (f *Fleet) produce(ctx context.Context, key string, value []byte, then func(error)) {
	record := &kgo.Record{
		Topic: f.options.Topic, Key: []byte(key), Value: value,
		Headers: []kgo.RecordHeader{{Key: groupHeader, Value: []byte(f.options.Group)}},
	}
	f.client.TryProduce(context.WithoutCancel(ctx), record, func(_ *kgo.Record, err error) {
		f.mu.Lock()
		first := err != nil && f.failure == ""
		if err != nil {
			f.failures++
			f.failure = untrusted.Text(err.Error())
		} else {
			f.failure = ""
		}
		text := f.failure
		f.mu.Unlock()
		if first {
			f.options.Log.Warn("the status topic can't be written: the other copies don't know how this one is",
				zap.String("topic", f.options.Topic), zap.String("problem", text))
		}
		if then != nil {
			then(err)
		}
	})
}

// bury writes the tombstones of a copy that is forgotten: of its head last, since
// with that the others stop to do the same.
func (f *Fleet) bury(ctx context.Context, id string, one *copyOf) {
	f.options.Log.Info("a copy is forgotten", zap.String("copy", id))
	for n, block := range one.blocks {
		if block != nil {
			f.produce(ctx, blockKey(id, n), nil, nil)
		}
	}
	f.produce(ctx, commandKey(id), nil, nil)
	f.produce(ctx, headKey(id), nil, nil)
}

// goodbye takes this copy's records out of the topic.
func (w *writer) goodbye() {
	f := w.fleet
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTimeout)
	defer cancel()
	f.produce(ctx, headKey(f.id), nil, nil) // first: it counts no more
	for n, block := range w.last {
		if block.written {
			f.produce(ctx, blockKey(f.id, n), nil, nil)
		}
	}
	f.produce(ctx, commandKey(f.id), nil, nil)
	if err := f.client.Flush(ctx); err != nil {
		f.options.Log.Info("the other copies are not told that this one has stopped: they see it as stale", zap.Error(err))
	}
}
