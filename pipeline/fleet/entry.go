package fleet

import (
	"errors"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"

	"twinegress/internal/event"
	"twinegress/internal/untrusted"
	"twinegress/pipeline"
	"twinegress/sinks"
)

// entry is what a copy says of one endpoint. Which endpoint that is every copy knows
// itself: the id is enough. Times are in milliseconds since 1970; 0: none.
type entry struct {
	id            [16]byte
	state         sinks.State
	since         int64 // of the state
	reason        string
	routed        uint64
	delivered     uint64
	pending       uint64
	dropped       [maxReasons]uint64 // by the index of reasons
	windows       [9]uint64          // routed, delivered, dropped; of 1 m, 15 m, 24 h
	oldest        int64              // how long the oldest event waits, in milliseconds
	lastDelivered int64
	lastErrorAt   int64
	lastError     string // only of what is wrong now
	failingSince  int64
	backOffUntil  int64
	partitions    []int // that back off
	secondary     bool
	holdsBack     bool
	deferred      uint64
	catchUp       catchUp
}

// maxReasons is how many reasons a record may count: more than there are, for those
// of later versions.
const maxReasons = 32

// states and reasons are numbered in records by their place here: new ones go to the
// end, and none is ever taken out.
var (
	states = []sinks.State{
		sinks.StateProvisioning, sinks.StateReady, sinks.StateDegraded, sinks.StateThrottled,
		sinks.StateBackingOff, sinks.StateProbing, sinks.StateStopped, sinks.StateDeleting,
		sinks.StateBehind,
	}
	reasons = []string{"backoff", "unreachable", "unauthorized", "throttled", "rejected", "too_large", "overflow", "removed", "stopped", "expired"}
)

// stateUnknown is the state of an endpoint on a copy of a later version.
const stateUnknown sinks.State = "unknown"

// The fields of an entry in a record.
const (
	fieldID protowire.Number = iota + 1
	fieldState
	fieldRouted
	fieldDelivered
	fieldPending
	fieldDropped // number of the reason, count
	fieldFlags
	fieldBackOffUntil
	fieldLastError
	fieldSince
	fieldReason
	fieldWindows
	fieldOldest
	fieldLastDelivered
	fieldLastErrorAt
	fieldFailingSince
	fieldPartition
	fieldDeferred
	fieldBacklog
	fieldBehindSince
	fieldBehindReason
	fieldOldestAt
	fieldPace
	fieldCaughtUpAt
)

const (
	flagSecondary = 1 << iota
	flagHoldsBack
	flagFallsBehind
)

const (
	// maxCount bounds a count from outside: the sum of all copies' can't overflow.
	maxCount = 1 << 53
	// maxErrorLength bounds the characters of an error in a record. The copy itself
	// has the whole.
	maxErrorLength = 200
	// maxPartitions bounds the partitions of a hub that are listed.
	maxPartitions = 64
)

// set sets the entry to what this copy says of an endpoint; false if that has no id of
// the form that all have.
func (e *entry) set(b *sinks.Brief, c *pipeline.CatchUp) bool {
	id, err := uuid.Parse(b.Endpoint.ID)
	w := &b.Windows
	*e = entry{
		id: id, state: b.State, since: millis(b.Since), reason: b.Reason,
		routed: b.Routed, delivered: b.Delivered, pending: uint64(max(0, b.Pending)),
		windows: [9]uint64{
			w.Minute.Routed, w.Minute.Delivered, w.Minute.Dropped,
			w.Quarter.Routed, w.Quarter.Delivered, w.Quarter.Dropped,
			w.Day.Routed, w.Day.Delivered, w.Day.Dropped,
		},
		oldest: b.OldestPending.Milliseconds(), lastDelivered: millis(b.LastDeliveredAt), lastErrorAt: millis(b.LastErrorAt),
		failingSince: millis(b.FailingSince), backOffUntil: millis(b.BackOffUntil),
		partitions: b.PartitionsBackingOff[:min(len(b.PartitionsBackingOff), maxPartitions)],
		secondary:  b.Key == sinks.Secondary, holdsBack: b.HoldsBack, deferred: b.Deferred,
	}
	if c.BehindSince != nil {
		e.catchUp.set(c)
	}
	if b.Reason != "" || b.State != sinks.StateReady {
		e.lastError = b.LastError
	}
	for reason, n := range b.Dropped {
		if n > 0 {
			if i := numberOf[reason]; i >= 0 {
				e.dropped[i] = n
			}
		}
	}
	return err == nil
}

// numberOf is the number in records of each reason; -1: it reaches no endpoint.
var numberOf = func() (numbers [event.NumReasons]int) {
	for reason := range numbers {
		numbers[reason] = slices.Index(reasons, event.Reason(reason).String())
	}
	return numbers
}()

// millis returns a time of an entry.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(0, t.UnixMilli())
}

// append adds the entry to a record. Versions before positions take an entry only if
// routed = delivered + dropped + pending: what was deferred is not among the routed of a
// record, and has a field that they skip.
func (e *entry) append(b []byte) []byte {
	number := func(field protowire.Number, n uint64) {
		if n > 0 {
			b = protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), n)
		}
	}
	b = protowire.AppendBytes(protowire.AppendTag(b, fieldID, protowire.BytesType), e.id[:])
	number(fieldState, uint64(slices.Index(states, e.state)+1))
	number(fieldRouted, e.routed-e.deferred)
	number(fieldDelivered, e.delivered)
	number(fieldPending, e.pending)
	for i, n := range e.dropped {
		if n > 0 {
			number(fieldDropped, uint64(i)+1)
			number(fieldDropped, n)
		}
	}
	flags := uint64(0)
	if e.secondary {
		flags |= flagSecondary
	}
	if e.holdsBack {
		flags |= flagHoldsBack
	}
	if e.catchUp.falls {
		flags |= flagFallsBehind
	}
	number(fieldFlags, flags)
	number(fieldDeferred, e.deferred)
	e.catchUp.numbers(number)
	number(fieldSince, uint64(e.since))
	number(fieldOldest, uint64(e.oldest))
	number(fieldLastDelivered, uint64(e.lastDelivered))
	number(fieldLastErrorAt, uint64(e.lastErrorAt))
	number(fieldFailingSince, uint64(e.failingSince))
	number(fieldBackOffUntil, uint64(e.backOffUntil))
	for _, partition := range e.partitions {
		number(fieldPartition, uint64(partition)+1)
	}
	if e.windows != [9]uint64{} {
		b = protowire.AppendTag(b, fieldWindows, protowire.BytesType)
		size := 0
		for _, n := range e.windows {
			size += protowire.SizeVarint(n)
		}
		b = protowire.AppendVarint(b, uint64(size))
		for _, n := range e.windows {
			b = protowire.AppendVarint(b, n)
		}
	}
	if e.reason != "" {
		b = protowire.AppendString(protowire.AppendTag(b, fieldReason, protowire.BytesType), e.reason)
	}
	if e.catchUp.reason != "" {
		b = protowire.AppendString(protowire.AppendTag(b, fieldBehindReason, protowire.BytesType), e.catchUp.reason)
	}
	if e.lastError != "" {
		b = protowire.AppendString(protowire.AppendTag(b, fieldLastError, protowire.BytesType), untrusted.Short(e.lastError, maxErrorLength))
	}
	return b
}

var errMalformed = errors.New("it is malformed")

// read reads an entry. Fields of a later version are skipped.
func (e *entry) read(b []byte) error {
	*e = entry{state: stateUnknown}
	var reason uint64 // of the count that comes next, plus one
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		switch kind {
		case protowire.VarintType:
			value, n := protowire.ConsumeVarint(b)
			if n < 0 || value > maxCount {
				return errMalformed
			}
			b = b[n:]
			if field != fieldDropped {
				if !e.setNumber(field, value) {
					return errMalformed
				}
				continue
			}
			if reason == 0 {
				if reason = value; value == 0 || value > maxReasons {
					return errMalformed
				}
				continue
			}
			e.dropped[reason-1], reason = value, 0
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
			switch field {
			case fieldID:
				if len(value) != len(e.id) {
					return errMalformed
				}
				e.id = [16]byte(value)
			case fieldLastError:
				e.lastError = untrusted.Short(string(value), maxErrorLength)
			case fieldReason, fieldBehindReason:
				if !legalWord.Match(value) {
					return errMalformed
				}
				if field == fieldReason {
					e.reason = string(value)
				} else {
					e.catchUp.reason = string(value)
				}
			case fieldWindows:
				if !e.readWindows(value) {
					return errMalformed
				}
			}
		default:
			n := protowire.ConsumeFieldValue(field, kind, b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
		}
	}
	dropped := uint64(0)
	for _, n := range e.dropped {
		dropped += n
	}
	// Every copy counts so: a record that doesn't is none of ours.
	if e.id == [16]byte{} || reason != 0 || e.routed != e.delivered+e.pending+dropped {
		return errMalformed
	}
	e.routed += e.deferred
	return nil
}

func (e *entry) readWindows(b []byte) bool {
	for i := range e.windows {
		value, n := protowire.ConsumeVarint(b)
		if n < 0 || value > maxCount {
			return false
		}
		e.windows[i], b = value, b[n:]
	}
	return true
}

// setNumber sets a field that is a number, and reports whether it may be that.
func (e *entry) setNumber(field protowire.Number, value uint64) bool {
	switch field {
	case fieldState:
		if value >= 1 && value <= uint64(len(states)) {
			e.state = states[value-1]
		}
	case fieldRouted:
		e.routed = value
	case fieldDelivered:
		e.delivered = value
	case fieldPending:
		e.pending = value
	case fieldFlags:
		e.secondary, e.holdsBack, e.catchUp.falls = value&flagSecondary != 0, value&flagHoldsBack != 0, value&flagFallsBehind != 0
	case fieldDeferred:
		e.deferred = value
	case fieldSince:
		e.since = int64(value)
	case fieldOldest:
		e.oldest = int64(min(value, maxWait))
	case fieldLastDelivered:
		e.lastDelivered = int64(value)
	case fieldLastErrorAt:
		e.lastErrorAt = int64(value)
	case fieldFailingSince:
		e.failingSince = int64(value)
	case fieldBackOffUntil:
		e.backOffUntil = int64(value)
	case fieldPartition:
		if value == 0 || value > 1<<16 || len(e.partitions) >= maxPartitions {
			return false
		}
		e.partitions = append(e.partitions, int(value)-1)
	default:
		e.catchUp.setNumber(field, int64(value))
	}
	return true
}

// urgent returns a hash of what others must learn at once: all but counts.
func (e *entry) urgent() uint64 {
	h := newHash()
	h.add(string(e.state))
	h.add(e.reason)
	if e.secondary {
		h.add("secondary")
	}
	if e.holdsBack {
		h.add("holdsBack")
	}
	if e.catchUp.falls {
		h.add("falls")
	}
	return uint64(h)
}

// timeOf returns a time of an entry; nil for none.
func timeOf(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := time.UnixMilli(min(ms, lastTime)).UTC()
	return &t
}

// maxWait is ten years in milliseconds: what is longer is none of ours, and would be
// too much for a duration.
const maxWait = 10 * 365 * 24 * 3600 * 1000

// lastTime is in the year 9999, the last that JSON has.
const lastTime = 253_402_300_799_000

// seconds returns a duration as the API shows it.
func seconds(d time.Duration) float64 { return math.Round(d.Seconds()*10) / 10 }
