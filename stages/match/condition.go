package match

import (
	"bytes"

	"twinegress/endpoints/filter"
	"twinegress/internal/event"
)

// condition is a filter compiled for events of one type.
type condition struct {
	op          filter.Op
	value       bool        // Const
	args        []condition // And, Or, Not
	left, right operand
}

// operand is a field of the event or a literal.
type operand struct {
	slot    int // noSlot for a literal
	literal value
}

const noSlot = -1

// slot is a field that conditions read. Its field path is a step from the
// parent slot, so a field is searched for once, however many conditions read
// it or a field below it, and all fields of one object in one pass.
type slot struct {
	filter.Step
	parent   int
	children []int
}

// root is the slot of the event itself. Its children are the envelope's members.
const root = 0

// asNumber is the Index of a step from a text to the number it contains.
const asNumber = -2

// compiler compiles the filters of a table and collects their slots.
type compiler struct {
	slots  []slot
	slotOf map[slotKey]int
}

type slotKey struct {
	parent int
	filter.Step
}

func newCompiler() *compiler {
	return &compiler{slots: make([]slot, root+1), slotOf: make(map[slotKey]int)}
}

// compile returns the condition that a filter is for events of one type.
func (c *compiler) compile(e *filter.Expr, typ event.Type) condition {
	switch e.Op {
	case filter.Const:
		return constant(e.Value)
	case filter.Not:
		arg := c.compile(e.Args[0], typ)
		if arg.op == filter.Const {
			return constant(!arg.value)
		}
		return condition{op: filter.Not, args: []condition{arg}}
	case filter.And, filter.Or:
		// One constant decides the result; the other has no effect on it.
		decisive := e.Op == filter.Or
		var args []condition
		for _, arg := range e.Args {
			switch arg := c.compile(arg, typ); {
			case arg.op != filter.Const:
				args = append(args, arg)
			case arg.value == decisive:
				return constant(decisive)
			}
		}
		switch len(args) {
		case 0:
			return constant(!decisive)
		case 1:
			return args[0]
		}
		return condition{op: e.Op, args: args}
	}
	left, right := c.operand(e.Left, typ), c.operand(e.Right, typ)
	if left.slot == noSlot && right.slot == noSlot {
		return constant(compare(e.Op, &left.literal, &right.literal))
	}
	return condition{op: e.Op, left: left, right: right}
}

func constant(b bool) condition { return condition{op: filter.Const, value: b} }

func (c *compiler) operand(o filter.Operand, typ event.Type) operand {
	literal := operand{slot: noSlot}
	switch o.Kind {
	case filter.Null:
		literal.literal.kind = null
	case filter.Bool:
		literal.literal.kind = boolFalse
		if o.Bool {
			literal.literal.kind = boolTrue
		}
	case filter.Number:
		literal.literal = value{kind: number, number: o.Number}
	case filter.Text:
		literal.literal = value{kind: text, text: []byte(o.Text)}
	case filter.Reference:
		if o.Field == filter.Type {
			literal.literal = value{kind: text, text: []byte(typ.String())}
			if o.AsNumber {
				literal.literal = value{} // no event type is a number
			}
			return literal
		}
		s := c.slot(root, filter.Step{Name: memberNames[o.Field], Index: filter.NoIndex})
		for _, step := range o.Path {
			s = c.slot(s, step)
		}
		if o.AsNumber {
			s = c.slot(s, filter.Step{Index: asNumber})
		}
		return operand{slot: s}
	}
	return literal
}

// memberNames are the names of the fields in an event.
var memberNames = map[filter.Field]string{
	filter.Subject:         subjectMember,
	filter.ID:              "id",
	filter.Time:            "eventTime",
	filter.DataVersion:     "dataVersion",
	filter.MetadataVersion: "metadataVersion",
	filter.Topic:           "topic",
	filter.Body:            dataMember,
}

const (
	subjectMember = "subject"
	dataMember    = "data"
)

func (c *compiler) slot(parent int, step filter.Step) int {
	i, ok := c.slotOf[slotKey{parent, step}]
	if !ok {
		i = len(c.slots)
		c.slotOf[slotKey{parent, step}] = i
		c.slots = append(c.slots, slot{Step: step, parent: parent})
		c.slots[parent].children = append(c.slots[parent].children, i)
	}
	return i
}

// holds reports whether the condition holds for the event.
func (d *document) holds(c *condition) bool {
	switch c.op {
	case filter.Const:
		return c.value
	case filter.Not:
		return !d.holds(&c.args[0])
	case filter.And, filter.Or:
		decisive := c.op == filter.Or
		for i := range c.args {
			if d.holds(&c.args[i]) == decisive {
				return decisive
			}
		}
		return !decisive
	}
	return compare(c.op, d.operand(&c.left), d.operand(&c.right))
}

func (d *document) operand(o *operand) *value {
	if o.slot == noSlot {
		return &o.literal
	}
	return d.value(o.slot)
}

// compare applies a comparison. It is false if a value is missing, as in Azure
// Digital Twins, where an undefined value is never true. Values of different
// kinds are unequal and have no order; objects and arrays equal nothing.
func compare(op filter.Op, a, b *value) bool {
	if a.kind == missing || b.kind == missing {
		return false
	}
	switch op {
	case filter.Equal:
		return equal(a, b)
	case filter.NotEqual:
		return !equal(a, b)
	}
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case number:
		switch op {
		case filter.Less:
			return a.number < b.number
		case filter.LessOrEqual:
			return a.number <= b.number
		case filter.Greater:
			return a.number > b.number
		case filter.GreaterOrEqual:
			return a.number >= b.number
		}
	case text:
		switch op {
		case filter.StartsWith:
			return bytes.HasPrefix(a.text, b.text)
		case filter.EndsWith:
			return bytes.HasSuffix(a.text, b.text)
		case filter.Contains:
			return bytes.Contains(a.text, b.text)
		case filter.Less:
			return bytes.Compare(a.text, b.text) < 0
		case filter.LessOrEqual:
			return bytes.Compare(a.text, b.text) <= 0
		case filter.Greater:
			return bytes.Compare(a.text, b.text) > 0
		case filter.GreaterOrEqual:
			return bytes.Compare(a.text, b.text) >= 0
		}
	}
	return false
}

func equal(a, b *value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case number:
		return a.number == b.number
	case text:
		return bytes.Equal(a.text, b.text)
	case compound:
		return false
	}
	return true // null, true, false
}
