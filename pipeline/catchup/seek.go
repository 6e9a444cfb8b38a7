package catchup

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/untrusted"
)

// orders are the seeks of the endpoints in force: the last one of each.
type orders struct {
	known   bool // they were set
	catchUp bool // an endpoint may be behind without a seek
	byHash  map[uint32]*order
}

// order is a seek, as an endpoint's definition has it.
type order struct {
	endpoint endpoints.Endpoint
	at, to   time.Time // to: where it leads to, if that is a time
	hash     uint32
}

// hashOf identifies a seek. It is what partitions remember of it.
func hashOf(e *endpoints.Endpoint) uint32 {
	h := fnv.New64a()
	for _, part := range []string{e.ID, e.SeekAt, e.SeekTo} {
		_, _ = h.Write([]byte(part))
		_, _ = h.Write([]byte{0})
	}
	return binary.LittleEndian.Uint32(h.Sum(nil))
}

// orderOf returns the seek of an endpoint, or nil if it has none. What its store takes
// is right; what it doesn't, is no order.
func orderOf(e *endpoints.Endpoint) *order {
	at, err := time.Parse(time.RFC3339Nano, e.SeekAt)
	if err != nil {
		return nil
	}
	o := &order{endpoint: *e, at: at, hash: hashOf(e)}
	switch e.SeekTo {
	case endpoints.Earliest, endpoints.Latest, endpoints.Cancel:
		return o
	}
	if o.to, err = time.Parse(time.RFC3339Nano, e.SeekTo); err != nil {
		return nil
	}
	return o
}

// Seeks sets the endpoints in force: each seek among them that a partition hasn't had
// yet is applied there. The caller has swapped the route table before.
func (k *Keeper) Seeks(set []endpoints.Endpoint) {
	next := orders{known: true, byHash: make(map[uint32]*order)}
	for i := range set {
		next.catchUp = next.catchUp || set[i].Recovery == endpoints.RecoveryCatchUp
		if set[i].SeekAt == "" {
			continue
		}
		if o := orderOf(&set[i]); o != nil {
			next.byHash[o.hash] = o
		} else {
			k.options.Log.Error("a seek is not applied: it isn't one", set[i].LogName(),
				zap.String("seekTo", untrusted.Text(set[i].SeekTo)), zap.String("seekAt", untrusted.Text(set[i].SeekAt)))
		}
	}
	k.mu.Lock()
	k.orders = next
	k.mu.Unlock()
	k.signal()
}

// mayBeBehind reports whether an endpoint may have had a position, for all that is
// known of the endpoints.
func (k *Keeper) mayBeBehind() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.orders.known || k.orders.catchUp || len(k.orders.byHash) > 0
}

// everyOrder returns the seeks in force as applied: in a partition of which it isn't
// known, one of last month must not be done again by itself.
func (k *Keeper) everyOrder() []uint32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]uint32, 0, len(k.orders.byHash))
	for hash := range k.orders.byHash {
		all = append(all, hash)
	}
	return all
}

// applySeeks applies the seeks that partitions haven't had yet, and reports whether
// none is left.
func (k *Keeper) applySeeks(ctx context.Context) (done bool) {
	k.mu.Lock()
	all := k.orders
	k.mu.Unlock()
	if !all.known {
		return true // comes with them
	}
	now := time.Now()
	due := make(map[*order][]*partition)
	for _, p := range k.all() {
		for _, o := range p.dueOf(&all, now) {
			due[o] = append(due[o], p)
		}
	}
	places := places{admin: k.admin, topics: k.options.Topics, byMilli: make(map[int64]kadm.ListedOffsets)}
	done, problem := true, ""
	for o, partitions := range due {
		applied := 0
		for _, p := range partitions {
			to, err := places.of(ctx, o, p.of)
			if ctx.Err() != nil {
				return false
			}
			if err != nil {
				done, problem = false, untrusted.Text(fmt.Sprintf("a seek of the endpoint %s in %v: %v", o.endpoint.ID, p.of, err))
				continue
			}
			if p.apply(o, to) {
				applied++
			}
		}
		if applied > 0 {
			k.options.Log.Info("seek applied", o.endpoint.LogName(), zap.String("seekTo", o.endpoint.SeekTo), zap.String("seekAt", o.endpoint.SeekAt), zap.Int("inPartitions", applied))
		}
	}
	k.mu.Lock()
	before := k.seekProblem
	k.seekProblem = problem
	k.mu.Unlock()
	if problem != "" && before == "" {
		k.options.Log.Warn("seeks wait for Kafka: trying again", zap.String("problem", problem))
	}
	return done
}

// dueOf returns the seeks that the partition hasn't had, and forgets those that no
// endpoint has any more.
func (p *partition) dueOf(all *orders, now time.Time) (due []*order) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.restored || p.revoked {
		return nil
	}
	for hash, o := range all.byHash {
		if !p.applied[hash] {
			due = append(due, o)
		}
	}
	if now.Sub(p.since) > grace {
		for hash := range p.applied {
			if all.byHash[hash] == nil {
				delete(p.applied, hash)
				p.changes++
			}
		}
	}
	return due
}

// apply moves the endpoint's position in the partition, and remembers that; in this
// order: a list may have the position without the seek, but not the seek alone.
func (p *partition) apply(o *order, to int64) bool {
	s := p.keeper.options.Sender(o.endpoint.ID)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s == nil || p.revoked {
		return false
	}
	at, behind := s.Position(p.owned)
	switch {
	case o.endpoint.SeekTo == endpoints.Latest && (!behind || at.Cursor >= to): // it is there
	case o.endpoint.SeekTo != endpoints.Cancel:
		s.Seek(p.owned, to, p.owned.Handed.Load()) // what is being dispatched, it may not have got
	case behind && at.Resume >= 0:
		s.Seek(p.owned, at.Resume, -1)
	}
	p.applied[o.hash] = true
	p.changes++
	return true
}

// places finds out where seeks lead to. What Kafka has said once is good for all seeks
// that are applied together.
type places struct {
	admin    *kadm.Client
	topics   []string
	earliest kadm.ListedOffsets
	byMilli  map[int64]kadm.ListedOffsets
}

func (l *places) of(ctx context.Context, o *order, in partitionID) (int64, error) {
	var listed kadm.ListedOffsets
	var err error
	switch o.endpoint.SeekTo {
	case endpoints.Cancel:
		return 0, nil
	case endpoints.Earliest:
		if l.earliest == nil {
			l.earliest, err = ask(ctx, func(ctx context.Context) (kadm.ListedOffsets, error) {
				return l.admin.ListStartOffsets(ctx, l.topics...)
			})
		}
		listed = l.earliest
	case endpoints.Latest:
		// The end as it was when the seek was ordered: a copy that applies it later, or
		// once more, must not skip what has come since.
		listed, err = l.after(ctx, o.at)
	default:
		listed, err = l.after(ctx, o.to)
	}
	if at, ok := listed.Lookup(in.topic, in.number); ok {
		return at.Offset, at.Err
	}
	if err == nil {
		err = errors.New("the brokers don't say where the partition is")
	}
	return 0, err
}

func (l *places) after(ctx context.Context, at time.Time) (kadm.ListedOffsets, error) {
	milli := max(at.UnixMilli(), 0)
	if listed, ok := l.byMilli[milli]; ok {
		return listed, nil
	}
	listed, err := ask(ctx, func(ctx context.Context) (kadm.ListedOffsets, error) {
		return l.admin.ListOffsetsAfterMilli(ctx, milli, l.topics...)
	})
	l.byMilli[milli] = listed // without what a broker of several didn't answer
	return listed, err
}

func ask(ctx context.Context, f func(context.Context) (kadm.ListedOffsets, error)) (kadm.ListedOffsets, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*requestTimeout)
	defer cancel()
	return f(ctx)
}

// Preview is what a seek is about, of all partitions of the ingest topics together.
type Preview struct {
	Offsets int64     // from there to the ends of the partitions
	From    time.Time // when the first of them was appended; zero: there is none
	Reaches time.Time // when the oldest that Kafka still has was appended; zero: it has none
}

// Preview returns what a seek to Earliest, Latest or a time would be about.
func (k *Keeper) Preview(ctx context.Context, to string) (Preview, error) {
	oldest, err := k.complete(ask(ctx, func(ctx context.Context) (kadm.ListedOffsets, error) {
		return k.admin.ListOffsetsAfterMilli(ctx, 0, k.options.Topics...)
	}))
	if err != nil {
		return Preview{}, err
	}
	preview := Preview{Reaches: first(oldest)}
	from := oldest
	switch to {
	case endpoints.Latest:
		return preview, nil
	case endpoints.Earliest:
	default:
		at, err := time.Parse(time.RFC3339Nano, to)
		if err != nil {
			return Preview{}, fmt.Errorf("%q is no place to seek to", untrusted.Text(to))
		}
		if from, err = k.complete(ask(ctx, func(ctx context.Context) (kadm.ListedOffsets, error) {
			return k.admin.ListOffsetsAfterMilli(ctx, max(at.UnixMilli(), 0), k.options.Topics...)
		})); err != nil {
			return Preview{}, err
		}
	}
	ends, err := k.complete(ask(ctx, func(ctx context.Context) (kadm.ListedOffsets, error) {
		return k.admin.ListEndOffsets(ctx, k.options.Topics...)
	}))
	if err != nil {
		return Preview{}, err
	}
	preview.From = first(from)
	ends.Each(func(end kadm.ListedOffset) {
		if at, ok := from.Lookup(end.Topic, end.Partition); ok {
			preview.Offsets += max(end.Offset-at.Offset, 0)
		}
	})
	return preview, nil
}

// complete returns an error if the brokers have not said all.
func (k *Keeper) complete(listed kadm.ListedOffsets, err error) (kadm.ListedOffsets, error) {
	if err == nil {
		err = listed.Error()
	}
	for _, topic := range k.options.Topics {
		if err == nil && len(listed[topic]) == 0 {
			err = fmt.Errorf("there is no topic %s", topic)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("offsets of the ingest topics: %w", err)
	}
	return listed, nil
}

// first returns the earliest time among offsets; zero if none has one.
func first(listed kadm.ListedOffsets) (at time.Time) {
	listed.Each(func(l kadm.ListedOffset) {
		if t := time.UnixMilli(l.Timestamp); l.Timestamp >= 0 && (at.IsZero() || t.Before(at)) {
			at = t
		}
	})
	return at
}
