package catchup

import (
	"context"
	"errors"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/event"
	"twinegress/internal/untrusted"
	"twinegress/sinks"
)

const (
	// refreshAfter is how old a list's record may be before it is written anew: a topic
	// that somebody made may delete records for their age.
	refreshAfter = 12 * time.Hour
	// membersAfter is how long the last list waits for the next after a change of who
	// is in it, and cursorsAfter if only cursors have changed.
	membersAfter, cursorsAfter = 5 * time.Second, time.Minute
)

type partitionID struct {
	topic  string
	number int32
}

func (p partitionID) String() string { return p.topic + "/" + strconv.Itoa(int(p.number)) }

// partition is the keeper's half of one ownership of a partition.
type partition struct {
	keeper *Keeper
	owned  *event.Ownership
	of     partitionID
	since  time.Time // of the ownership
	// unlisted is how many positions the metadata has no room for.
	unlisted atomic.Uint64

	mu       sync.Mutex // held while a sender's position is set
	restored bool
	revoked  bool
	applied  map[uint32]bool
	changes  uint64  // of applied and orphans
	orphans  []entry // of endpoints that this copy doesn't have
	problem  string  // why the partition isn't read

	composing sync.Mutex // held while a list is composed and stored
	listed    uint64     // the ownership's Listed when the list was read last
	changed   uint64     // changes at that time
	composed  list       // as it was read last
	scratch   []entry
	text      string // its metadata
	textAt    time.Time
	names     []storedList
	cutSeeks  bool // seeks are left out of the metadata

	witness witness
}

// storedList is a list in the topic that may be deleted when a later commit is made.
type storedList struct {
	name string
	at   time.Time
}

// witness is the list that is written beside the commits. Its lock is taken last.
type witness struct {
	mu      sync.Mutex
	there   bool   // the topic may have one
	written uint64 // its members
	at      time.Time
	encoded []byte // of the newest list; nil: nobody is behind
	members uint64
	dirty   bool // the newest one isn't written
}

// errNotRestored means that a partition's positions are not known yet, or not any more.
var errNotRestored = errors.New("the positions in the partition are not restored")

// restore hands the positions of a list to their senders.
func (p *partition) restore(l *list) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, hash := range l.applied {
		p.applied[hash] = true
	}
	began := p.owned.Dispatched.Load()
	for _, e := range l.entries {
		if s := p.keeper.options.Sender(e.id); s != nil {
			s.Restore(p.owned, e.position())
		} else {
			// What lies between is dispatched again, and the endpoint isn't there to get it.
			e.cursor, e.resume = min(e.cursor, began), min(e.resume, began)
			p.orphans = append(p.orphans, e)
		}
	}
	p.restored = true
	p.changes++
	p.witness.mu.Lock()
	p.witness.there = !l.empty()
	p.witness.mu.Unlock()
}

func (e entry) position() sinks.Position {
	return sinks.Position{Cursor: e.cursor, Resume: e.resume, Since: time.Unix(e.since, 0)}
}

// adopt hands the positions of endpoints that have come since to their senders, and
// drops those of endpoints that don't. p.mu is held.
func (p *partition) adopt(now time.Time) {
	if len(p.orphans) == 0 || p.revoked {
		return
	}
	before := len(p.orphans)
	p.orphans = slices.DeleteFunc(p.orphans, func(e entry) bool {
		if s := p.keeper.options.Sender(e.id); s != nil {
			s.Restore(p.owned, e.position())
			if at, is := s.Position(p.owned); !is || at.Cursor > e.cursor { // it came, and fell behind by itself
				s.Seek(p.owned, e.cursor, e.resume)
			}
			return true
		}
		if now.Sub(p.since) < grace {
			return false
		}
		p.keeper.options.Log.Warn("a position is dropped: there is no such endpoint", zap.String("endpoint", untrusted.Text(e.id)),
			zap.String("topic", p.of.topic), zap.Int32("partition", p.of.number), zap.Int64("offset", e.cursor))
		return true
	})
	if len(p.orphans) != before {
		p.changes++
	}
}

// look hands over what it can, and returns the number of the changes of applied and
// orphans.
func (p *partition) look(now time.Time) (changes uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.restored {
		return 0, errNotRestored
	}
	p.adopt(now)
	return p.changes, nil
}

// gather reads who is behind into p.scratch, and which seeks are applied. These are read
// first: a list in which a seek is applied must have its position.
func (p *partition) gather() (applied []uint32) {
	p.mu.Lock()
	if len(p.applied) > 0 {
		applied = make([]uint32, 0, len(p.applied))
		for hash := range p.applied {
			applied = append(applied, hash)
		}
		slices.Sort(applied)
	}
	p.scratch = append(p.scratch[:0], p.orphans...)
	p.mu.Unlock()
	for _, s := range p.keeper.options.Behind.Of(p.owned) {
		if at, is := s.Position(p.owned); is {
			p.scratch = append(p.scratch, entry{id: s.Endpoint().ID, cursor: at.Cursor, resume: at.Resume, since: at.Since.Unix()})
		}
	}
	slices.SortFunc(p.scratch, byCursor)
	return applied
}

// metadata returns what is to be committed beside the mark. While nothing changes it
// costs nothing, also if thousands are behind.
func (p *partition) metadata(ctx context.Context, now time.Time) (string, error) {
	p.composing.Lock()
	defer p.composing.Unlock()
	// Before the list is read: what changes meanwhile is read again the next time.
	listed := p.owned.Listed.Load()
	changes, err := p.look(now)
	if err != nil {
		return "", err
	}
	fits := now.Sub(p.textAt) < refreshAfter && int64(len(p.text)) <= p.keeper.limit.Load()
	if p.text != "" && fits && listed == p.listed && changes == p.changed {
		return p.text, nil
	}
	applied := p.gather()
	same := slices.Equal(p.scratch, p.composed.entries) && slices.Equal(applied, p.composed.applied)
	switch {
	case p.text != "" && fits && same:
	case len(p.scratch) == 0 && len(applied) == 0:
		p.text = Version
		p.unlisted.Store(0)
		p.observe(nil, 0)
	default:
		l := list{entries: slices.Clone(p.scratch), applied: slices.Clone(applied)}
		if p.text, err = p.write(ctx, &l, now); err != nil {
			return "", err
		}
	}
	if !same || !fits {
		p.textAt = now
	}
	p.listed, p.changed = listed, changes
	p.composed.entries = append(p.composed.entries[:0], p.scratch...)
	p.composed.applied = applied
	return p.text, nil
}

// write returns the metadata of a list, and stores the list if it is too long for that.
func (p *partition) write(ctx context.Context, l *list, now time.Time) (string, error) {
	limit := int(p.keeper.limit.Load())
	encoded := l.encode()
	p.observe(encoded, members(l))
	if inlineLen(encoded) <= limit {
		p.unlisted.Store(0)
		return inline(encoded), nil
	}
	if s := p.keeper.store; s != nil {
		name, err := s.put(ctx, p.of, encoded)
		if err != nil {
			return "", err
		}
		p.names = append(p.names, storedList{name, now})
		return named(name), nil
	}
	seeks := len(l.applied)
	encoded = l.fit(limit)
	if cut := len(l.applied) < seeks; cut != p.cutSeeks {
		if p.cutSeeks = cut; cut {
			p.keeper.options.Log.Warn("seeks don't fit into the commit of a partition, and may be applied once more after this copy: set positions.topic",
				zap.String("topic", p.of.topic), zap.Int32("partition", p.of.number), zap.Int("seeks", seeks-len(l.applied)))
		}
	}
	if before := p.unlisted.Swap(l.left); before == 0 && l.left > 0 {
		p.keeper.options.Log.Error("positions don't fit into the commit of a partition, and would be lost with this copy: set positions.topic",
			zap.String("topic", p.of.topic), zap.Int32("partition", p.of.number), zap.Uint64("positions", l.left))
	}
	return inline(encoded), nil
}

// members returns what changes when an endpoint enters or leaves a list, or a seek is
// applied, in whatever order they are.
func members(l *list) uint64 {
	sum := uint64(1)
	for i := range l.entries {
		h := fnv.New64a()
		_, _ = h.Write([]byte(l.entries[i].id))
		sum += h.Sum64()
	}
	for _, hash := range l.applied {
		sum += uint64(hash) * 0x9e3779b97f4a7c15
	}
	return sum
}

// observe takes the newest list for the witness.
func (p *partition) observe(encoded []byte, members uint64) {
	if p.keeper.store == nil {
		return
	}
	w := &p.witness
	w.mu.Lock()
	defer w.mu.Unlock()
	w.encoded, w.members = encoded, members
	w.dirty = encoded != nil || w.there
}

// writeWitness writes the newest list if it is time to, or at once if wait is 0.
func (p *partition) writeWitness(now time.Time, wait time.Duration) {
	w := &p.witness
	w.mu.Lock()
	defer w.mu.Unlock()
	if wait > 0 && w.members == w.written {
		wait = cursorsAfter
	}
	if !w.dirty || now.Sub(w.at) < wait || !p.keeper.store.putLater(p.of, lastName, w.encoded) {
		return
	}
	w.dirty, w.there, w.at, w.written = false, w.encoded != nil, now, w.members
}

// found records lists that are in the topic: they may be deleted once a commit of this
// ownership is made.
func (p *partition) found(name string, others map[string]bool) {
	p.composing.Lock()
	defer p.composing.Unlock()
	p.names = p.names[:0]
	for other := range others {
		p.names = append(p.names, storedList{name: other})
	}
	if name != "" {
		p.names = append(p.names, storedList{name: name})
	}
}

// setProblem records why the partition isn't read, and reports whether that is new.
func (p *partition) setProblem(problem string) bool {
	problem = untrusted.Text(problem)
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.problem
	p.problem = problem
	return before != problem
}

func (p *partition) problemNow() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.problem
}
