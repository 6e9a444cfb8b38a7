package match

import (
	"bytes"
	"strconv"

	"twinegress/endpoints/filter"
	"twinegress/internal/event"
	"twinegress/internal/jsonwalk"
)

// document reads the fields that conditions use from an event's bytes: only
// those, each once. It copies nothing but texts with escapes, and walks an
// object or array at most once, and only if a condition reads something in it.
// Its methods share that one walk.
type document struct {
	ev    *event.Event
	slots []slot
	// generation numbers the events. A value of an earlier generation has not
	// been read yet, so nothing is cleared between events.
	generation uint64
	values     []value // by slot
	buffer     []byte  // memory for texts that aren't in the event as such
}

// kind is the kind of a value.
type kind uint8

const (
	missing kind = iota
	null
	boolFalse
	boolTrue
	number
	text
	compound // an object or an array
)

// value is a JSON value.
type value struct {
	generation uint64
	kind       kind
	number     float64
	text       []byte // escapes undone
	raw        []byte // compound: its bytes
}

// open starts reading the next event.
func (d *document) open(ev *event.Event, slots []slot) {
	d.generation++
	d.ev, d.slots = ev, slots
	d.buffer = d.buffer[:0]
	if len(d.values) < len(slots) {
		d.values = make([]value, len(slots))
	}
	d.values[root] = value{generation: d.generation}
	if !ev.Raw { // a device's own bytes have no fields
		d.values[root].kind, d.values[root].raw = compound, jsonwalk.Trim(ev.Body)
	}
}

// reset releases the event.
func (d *document) reset() {
	clear(d.values)
	d.ev, d.slots = nil, nil
}

// value returns the value of a slot.
func (d *document) value(i int) *value {
	v, s := &d.values[i], &d.slots[i]
	if v.generation == d.generation {
		return v
	}
	if s.parent == root && s.Name == subjectMember && d.ev.Subject != "" {
		// Decoded already, and used often: this saves the walk.
		start := len(d.buffer)
		d.buffer = append(d.buffer, d.ev.Subject...)
		*v = value{generation: d.generation, kind: text, text: d.buffer[start:]}
		return v
	}
	if parent := d.value(s.parent); v.generation != d.generation { // reading the parent may have read it
		d.readChildren(s.parent, parent)
	}
	return v
}

// readChildren reads the slots below a slot.
func (d *document) readChildren(i int, parent *value) {
	children := d.slots[i].children
	switch {
	case parent.kind == compound && parent.raw[0] == '{':
		d.readObject(i, parent.raw, 0)
		return
	case parent.kind == compound:
		d.missing(children)
		d.readElements(children, parent.raw)
		return
	}
	d.missing(children)
	if parent.kind != number && parent.kind != text {
		return
	}
	for _, child := range children {
		if d.slots[child].Index != asNumber {
			continue
		}
		v := &d.values[child]
		if v.kind, v.number = number, parent.number; parent.kind == number {
			continue
		}
		var ok bool
		if v.number, ok = parseNumber(parent.text); !ok {
			v.kind = missing
		}
	}
}

// missing sets the values of slots to missing.
func (d *document) missing(slots []int) {
	for _, i := range slots {
		d.values[i] = value{generation: d.generation}
	}
}

// readObject reads the slots below slot i, which is the object at doc[start:],
// and those of the objects in it, in one pass. It returns the object's end.
func (d *document) readObject(i int, doc []byte, start int) (end int) {
	children := d.slots[i].children
	d.missing(children)
	return jsonwalk.Walk(doc, start, func(m jsonwalk.Member) (end int) {
		child := d.child(i, doc[m.KeyStart:m.KeyEnd])
		if child < 0 {
			return jsonwalk.SkipValue(doc, m.Start)
		}
		v := &d.values[child]
		if v.kind != missing { // of equal keys the last one wins
			if i == root && doc[m.Start] == 'n' && d.slots[child].Name != dataMember {
				return jsonwalk.SkipValue(doc, m.Start) // except for a null: Decode ignores one in a text's place
			}
			d.invalidate(child)
		}
		if doc[m.Start] == '{' && len(d.slots[child].children) > 0 {
			end = d.readObject(child, doc, m.Start)
			*v = value{generation: d.generation, kind: compound, raw: doc[m.Start:end]}
			return end
		}
		end = jsonwalk.SkipValue(doc, m.Start)
		d.read(v, doc[m.Start:end])
		return end
	})
}

// child returns the child of slot i with this key, or -1. Like Decode it
// ignores the case of the envelope's keys; all others match exactly.
func (d *document) child(i int, key []byte) int {
	if i == root {
		for _, child := range d.slots[i].children {
			if jsonwalk.KeyIs(key, d.slots[child].Name) {
				return child
			}
		}
		return -1
	}
	if bytes.IndexByte(key, '\\') >= 0 {
		key = d.unescape(key)
	}
	for _, child := range d.slots[i].children {
		if s := &d.slots[child]; s.Index == filter.NoIndex && string(key) == s.Name {
			return child
		}
	}
	return -1
}

// invalidate marks everything below a slot as not read.
func (d *document) invalidate(i int) {
	for _, child := range d.slots[i].children {
		d.values[child].generation = 0
		d.invalidate(child)
	}
}

func (d *document) readElements(children []int, array []byte) {
	index, left := 0, len(children)
	jsonwalk.Members(array, func(m jsonwalk.Member) bool {
		for _, child := range children {
			if d.slots[child].Index == index {
				d.read(&d.values[child], array[m.Start:m.End])
				left--
			}
		}
		index++
		return left > 0
	})
}

// read sets v from the bytes of a JSON value.
func (d *document) read(v *value, raw []byte) {
	*v = value{generation: d.generation}
	switch raw[0] {
	case '"':
		v.kind, v.text = text, raw[1:len(raw)-1]
		if bytes.IndexByte(v.text, '\\') >= 0 {
			v.text = d.unescape(v.text)
		}
	case '{', '[':
		v.kind, v.raw = compound, raw
	case 'n':
		v.kind = null
	case 't':
		v.kind = boolTrue
	case 'f':
		v.kind = boolFalse
	default:
		v.kind = number
		// A number that no float64 holds is infinite, and compares so.
		v.number, _ = strconv.ParseFloat(string(raw), 64)
	}
}

func (d *document) unescape(s []byte) []byte {
	start := len(d.buffer)
	d.buffer = jsonwalk.Unescape(d.buffer, s)
	return d.buffer[start:]
}

// parseNumber parses a JSON number and nothing else.
func parseNumber(s []byte) (n float64, ok bool) {
	if !jsonwalk.IsNumber(s) {
		return 0, false
	}
	n, _ = strconv.ParseFloat(string(s), 64)
	return n, true
}
