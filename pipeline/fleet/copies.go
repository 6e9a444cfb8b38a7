package fleet

import (
	"errors"
	"maps"
	"slices"
	"time"
)

const (
	// heartbeat is how often a copy says how it is.
	heartbeat = 1500 * time.Millisecond
	// staleAfter is how long after its last word a copy is stale: three heartbeats.
	staleAfter = 3 * heartbeat
	// forgetAfter is how long after its last word a copy is forgotten.
	forgetAfter = 10 * time.Minute

	// maxCopies and maxKept bound what is kept of the others: anybody who may write
	// to the topic could say that there are more.
	maxCopies = 200
	maxKept   = 128 << 20
)

var errTooMuch = errors.New("there are more copies, or more of their endpoints, than are kept")

// copyOf is what another copy has said.
type copyOf struct {
	head     head // with V 0: not yet
	blocks   [blocks][]byte
	bytes    int
	heardAt  time.Time // by this process's clock
	wroteAt  time.Time // the record's time
	setSince time.Time // its set of endpoints is what it is, by this process's clock
}

// copies is what the other copies have said. It does no I/O, and the time is
// passed in.
type copies struct {
	all    map[string]*copyOf
	bytes  int
	newest time.Time // time of a record
}

func newCopies() *copies { return &copies{all: make(map[string]*copyOf)} }

// put takes a copy's head or block in. nil is a tombstone.
func (c *copies) put(kind, id string, block int, value []byte, wroteAt, now time.Time) error {
	if wroteAt.After(c.newest) {
		c.newest = wroteAt
	}
	one := c.all[id]
	if value == nil {
		switch {
		case one == nil:
		case kind == keyHead:
			c.drop(id)
		default:
			c.setBlock(one, block, nil)
		}
		return nil
	}
	var h head
	var err error
	if kind == keyHead {
		h, err = readHead(value)
	} else {
		err = checkBlock(block, value)
	}
	if err != nil {
		return err
	}
	if one == nil {
		if len(c.all) >= maxCopies {
			return errTooMuch
		}
		one = &copyOf{heardAt: now, wroteAt: wroteAt}
		c.all[id] = one
	}
	if kind == keyHead {
		if one.head.Set != h.Set {
			one.setSince = now
		}
		one.head, one.heardAt, one.wroteAt = h, now, wroteAt
		return nil
	}
	if c.bytes+len(value)-len(one.blocks[block]) > maxKept {
		return errTooMuch
	}
	c.setBlock(one, block, slices.Clone(value))
	return nil
}

// checkBlock returns an error of a block of which an endpoint could count twice.
func checkBlock(block int, value []byte) error {
	var last [16]byte
	wrong := false
	err := eachEntry(value, func(e *entry) {
		wrong = wrong || blockOf(e.id) != block || slices.Compare(e.id[:], last[:]) <= 0
		last = e.id
	})
	if err == nil && wrong {
		err = errMalformed
	}
	return err
}

func (c *copies) setBlock(one *copyOf, block int, value []byte) {
	more := len(value) - len(one.blocks[block])
	one.blocks[block] = value
	one.bytes += more
	c.bytes += more
}

func (c *copies) drop(id string) {
	c.bytes -= c.all[id].bytes
	delete(c.all, id)
}

// caughtUp ends the reading of what was in the topic before now. What a copy had
// said before that is not new: it is as old as the records' times say, of which the
// newest is this copy's own. Clocks of copies may differ; then one may be taken for
// live until its next heartbeat doesn't come.
func (c *copies) caughtUp(now time.Time) {
	for _, one := range c.all {
		one.heardAt = now.Add(-c.newest.Sub(one.wroteAt))
	}
}

func (one *copyOf) stale(now time.Time) bool { return now.Sub(one.heardAt) > staleAfter }

// count returns how many copies have a heartbeat, how many had one, and for how long
// those that have one have been silent at most.
func (c *copies) count(now time.Time) (live, stale int, oldest time.Duration) {
	for _, one := range c.all {
		switch {
		case one.head.V == 0:
		case one.stale(now):
			stale++
		default:
			live++
			oldest = max(oldest, now.Sub(one.heardAt))
		}
	}
	return live, stale, oldest
}

// forgotten takes those out that fell silent long ago, or whose place another copy
// of the same instance has taken since, and returns them.
func (c *copies) forgotten(now time.Time, self head) map[string]*copyOf {
	gone := make(map[string]*copyOf)
	for id, one := range c.all {
		if one.stale(now) && (now.Sub(one.heardAt) > forgetAfter || c.replaced(one, now, self)) {
			gone[id] = one
		}
	}
	for id := range gone {
		c.drop(id)
	}
	return gone
}

// replaced reports whether a live copy of the same instance began after the last
// word of this one: a process that was started again. Two that ran side by side
// don't replace each other.
func (c *copies) replaced(old *copyOf, now time.Time, self head) bool {
	after := func(h head) bool {
		return h.Instance == old.head.Instance && h.StartedAt.After(old.head.At)
	}
	if old.head.V == 0 {
		return false
	}
	if after(self) {
		return true
	}
	for _, one := range c.all {
		if one != old && one.head.V != 0 && !one.stale(now) && after(one.head) {
			return true
		}
	}
	return false
}

// ids returns the copies that have a head, in order.
func (c *copies) ids() []string {
	return slices.Sorted(maps.Keys(c.all))
}
