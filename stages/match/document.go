package match

import (
	"bytes"
	"strconv"

	"twinegress/endpoints/filter"
	"twinegress/internal/event"
	"twinegress/internal/jsonwalk"
)

// document reads the values that conditions ask for out of an event's bytes:
// only those, each once, and without a copy of more than texts with escapes.
// Each object or array is walked once at most, and only if something in it is
// asked for.
type document struct {
	ev    *event.Event
	slots []slot
	// age numbers the events, so that a new one needs nothing cleared: a value
	// of an earlier age is not known yet.
	age    uint64
	values []value // by slot
	texts  []byte  // memory for texts that aren't in the event as such
}

// kind is what a value is.
type kind uint8

const (
	missing kind = iota
	null
	falsehood
	truth
	number
	text
	compound // an object or an array
)

// value is a JSON value.
type value struct {
	age    uint64
	kind   kind
	number float64
	text   []byte // escapes undone
	raw    []byte // compound: its bytes
}

// open turns to the next event.
func (d *document) open(ev *event.Event, slots []slot) {
	d.age++
	d.ev, d.slots = ev, slots
	d.texts = d.texts[:0]
	if len(d.values) < len(slots) {
		d.values = make([]value, len(slots))
	}
	d.values[whole] = value{age: d.age}
	if !ev.Raw { // a device's own bytes hold nothing for us
		d.values[whole].kind, d.values[whole].raw = compound, jsonwalk.Trim(ev.Body)
	}
}

// reset lets go of the event.
func (d *document) reset() {
	clear(d.values)
	d.ev, d.slots = nil, nil
}

// value gives what stands in a slot.
func (d *document) value(i int) *value {
	v, s := &d.values[i], &d.slots[i]
	if v.age == d.age {
		return v
	}
	if s.parent == whole && s.Name == subjectMember && d.ev.Subject != "" {
		// Decoded already, and asked for often: this saves the walk.
		start := len(d.texts)
		d.texts = append(d.texts, d.ev.Subject...)
		*v = value{age: d.age, kind: text, text: d.texts[start:]}
		return v
	}
	if parent := d.value(s.parent); v.age != d.age { // or it was read on the way
		d.readChildren(s.parent, parent)
	}
	return v
}

// readChildren reads what is asked for in a value.
func (d *document) readChildren(i int, parent *value) {
	children := d.slots[i].children
	switch {
	case parent.kind == compound && parent.raw[0] == '{':
		d.walk(i, parent.raw, 0)
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

func (d *document) missing(slots []int) {
	for _, i := range slots {
		d.values[i] = value{age: d.age}
	}
}

// walk reads what is asked for of the object at doc[start:], in slot i, and of
// the objects in it, in one go; it gives the object's end.
func (d *document) walk(i int, doc []byte, start int) (end int) {
	children := d.slots[i].children
	d.missing(children)
	return jsonwalk.Walk(doc, start, func(m jsonwalk.Member) (end int) {
		child := d.match(i, doc[m.KeyStart:m.KeyEnd])
		if child < 0 {
			return jsonwalk.SkipValue(doc, m.Start)
		}
		v := &d.values[child]
		if v.kind != missing { // of equal keys the last wins
			if i == whole && doc[m.Start] == 'n' && d.slots[child].Name != dataMember {
				return jsonwalk.SkipValue(doc, m.Start) // but, as for decode, a null is no text
			}
			d.forget(child)
		}
		if doc[m.Start] == '{' && len(d.slots[child].children) > 0 {
			end = d.walk(child, doc, m.Start)
			*v = value{age: d.age, kind: compound, raw: doc[m.Start:end]}
			return end
		}
		end = jsonwalk.SkipValue(doc, m.Start)
		d.read(v, doc[m.Start:end])
		return end
	})
}

// match gives the child of slot i that a key is for, or -1. The envelope's keys
// match without regard to case, as for decode; all others exactly.
func (d *document) match(i int, key []byte) int {
	if i == whole {
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

// forget makes everything below a slot unknown again.
func (d *document) forget(i int) {
	for _, child := range d.slots[i].children {
		d.values[child].age = 0
		d.forget(child)
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
	*v = value{age: d.age}
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
		v.kind = truth
	case 'f':
		v.kind = falsehood
	default:
		v.kind = number
		// A number that no float64 holds is infinite, and compares so.
		v.number, _ = strconv.ParseFloat(string(raw), 64)
	}
}

func (d *document) unescape(s []byte) []byte {
	start := len(d.texts)
	d.texts = jsonwalk.Unescape(d.texts, s)
	return d.texts[start:]
}

// parseNumber takes what JSON takes as a number, and nothing else.
func parseNumber(s []byte) (n float64, ok bool) {
	if !jsonwalk.IsNumber(s) {
		return 0, false
	}
	n, _ = strconv.ParseFloat(string(s), 64)
	return n, true
}
