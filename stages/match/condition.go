package match

import (
	"bytes"

	"twinegress/endpoints/filter"
	"twinegress/internal/event"
)

// condition is a filter, compiled for events of one type.
type condition struct {
	op          filter.Op
	value       bool        // Const
	args        []condition // And, Or, Not
	left, right operand
}

// operand is a value of the event's, or a literal.
type operand struct {
	slot    int // or noSlot
	literal value
}

const noSlot = -1

// slot is a place in an event that conditions read, as a step from the slot
// that holds it. So each place is looked for once, however many conditions
// name it or something below it, and all places in one value together.
type slot struct {
	filter.Step
	parent   int
	children []int
}

// whole is the slot of the event itself. Its children are the envelope's members.
const whole = 0

// asNumber is the Index of a step from a text to the number that it is.
const asNumber = -2

// compiler collects the slots of all conditions of a table.
type compiler struct {
	slots []slot
	index map[place]int
}

type place struct {
	parent int
	filter.Step
}

func newCompiler() *compiler {
	return &compiler{slots: make([]slot, whole+1), index: make(map[place]int)}
}

// compile gives the condition that is left of a filter for events of one type.
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
		// The one constant that decides it; the other one says nothing.
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
		literal.literal.kind = falsehood
		if o.Bool {
			literal.literal.kind = truth
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
		s := c.slot(whole, filter.Step{Name: memberNames[o.Field], Index: filter.NoIndex})
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

// memberNames are what the fields are called in an event.
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
	i, ok := c.index[place{parent, step}]
	if !ok {
		i = len(c.slots)
		c.index[place{parent, step}] = i
		c.slots = append(c.slots, slot{Step: step, parent: parent})
		c.slots[parent].children = append(c.slots[parent].children, i)
	}
	return i
}

// meets tells whether the event meets the condition.
func (d *document) meets(c *condition) bool {
	switch c.op {
	case filter.Const:
		return c.value
	case filter.Not:
		return !d.meets(&c.args[0])
	case filter.And, filter.Or:
		decisive := c.op == filter.Or
		for i := range c.args {
			if d.meets(&c.args[i]) == decisive {
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

// compare is false whenever something is missing, as in the successor, where
// what is undefined is never true. Values of different kinds are unequal and
// have no order; objects and arrays equal nothing.
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
