// Package filter is the language in which an endpoint says which events it
// wants of the types that it subscribed to:
//
//	type = 'SensorChange' AND $body.Value.Value > 30
//
// It is the event-route filter of Azure Digital Twins (2020-12), over the
// fields of our envelope. This package reads and prints filters; what they
// mean for an event is decided where events are routed, in stages.
package filter

import (
	"strconv"
	"strings"
)

// Op is what an Expr does.
type Op uint8

// And and Or have two Args or more, Not has one, Const has a Value. All others
// have a Left and a Right, of which at least one is a reference.
const (
	Const Op = iota
	And
	Or
	Not
	Equal
	NotEqual
	Less
	LessOrEqual
	Greater
	GreaterOrEqual
	StartsWith
	EndsWith
	Contains
)

var opNames = [...]string{
	And: "AND", Or: "OR", Not: "NOT",
	Equal: "=", NotEqual: "!=", Less: "<", LessOrEqual: "<=", Greater: ">", GreaterOrEqual: ">=",
	StartsWith: "STARTS_WITH", EndsWith: "ENDS_WITH", Contains: "CONTAINS",
}

// String is how the operator is written.
func (op Op) String() string { return opNames[op] }

// Expr is a filter or a part of one. It is not changed once it is parsed.
type Expr struct {
	Op          Op
	Value       bool
	Args        []*Expr
	Left, Right Operand
}

// Kind is what an Operand is.
type Kind uint8

// The literals, and a reference into the event.
const (
	Null Kind = iota
	Bool
	Number
	Text
	Reference
)

// Operand is one side of a comparison.
type Operand struct {
	Kind   Kind
	Bool   bool
	Number float64
	Text   string
	Field  Field // Reference
	Path   []Step
	// AsNumber takes a reference to text as the number that the text is: many
	// sensors' values come in quotes.
	AsNumber bool
}

// Field is a field of the envelope, by the name that it has in a filter.
type Field string

// The fields of the envelope. Those that CloudEvents calls otherwise have its
// name, which is the successor's, and answer to the envelope's own as well.
const (
	Type            Field = "type"
	Subject         Field = "subject"
	ID              Field = "id"
	Time            Field = "time"
	DataVersion     Field = "dataVersion"
	MetadataVersion Field = "metadataVersion"
	Topic           Field = "topic"
	Body            Field = "$body" // the event's data
)

// Step leads from a value to one that it holds: a member of an object, or an
// element of an array.
type Step struct {
	Name  string
	Index int // NoIndex for a member
}

// NoIndex is the Index of a Step to a member.
const NoIndex = -1

// String is the filter in its one canonical spelling, of which equal ones mean
// equal filters. It parses to the same again, unless the spaces that it has and
// the source had not make it too long.
func (e *Expr) String() string {
	var b strings.Builder
	e.write(&b)
	return b.String()
}

func (e *Expr) write(b *strings.Builder) {
	switch e.Op {
	case Const:
		b.WriteString(strconv.FormatBool(e.Value))
	case And, Or:
		for i, arg := range e.Args {
			if i > 0 {
				b.WriteString(" " + e.Op.String() + " ")
			}
			arg.writeIn(b, e.Op == And && arg.Op == Or)
		}
	case Not:
		b.WriteString("NOT ")
		e.Args[0].writeIn(b, e.Args[0].Op == And || e.Args[0].Op == Or)
	case StartsWith, EndsWith, Contains:
		b.WriteString(e.Op.String() + "(")
		e.Left.write(b)
		b.WriteString(", ")
		e.Right.write(b)
		b.WriteString(")")
	default:
		e.Left.write(b)
		b.WriteString(" " + e.Op.String() + " ")
		e.Right.write(b)
	}
}

// writeIn adds parentheses only where they are needed: with those that its
// source had, a filter is not too deep, and with more it might be.
func (e *Expr) writeIn(b *strings.Builder, parentheses bool) {
	if parentheses {
		b.WriteByte('(')
		defer b.WriteByte(')')
	}
	e.write(b)
}

func (o Operand) String() string {
	var b strings.Builder
	o.write(&b)
	return b.String()
}

func (o Operand) write(b *strings.Builder) {
	switch o.Kind {
	case Null:
		b.WriteString("null")
	case Bool:
		b.WriteString(strconv.FormatBool(o.Bool))
	case Number:
		b.WriteString(strconv.FormatFloat(o.Number, 'g', -1, 64))
	case Text:
		b.WriteString(quoted(o.Text))
	case Reference:
		if o.AsNumber {
			b.WriteString(asNumber + "(")
			defer b.WriteByte(')')
		}
		b.WriteString(string(o.Field))
		for _, step := range o.Path {
			switch {
			case step.Index != NoIndex:
				b.WriteString("[" + strconv.Itoa(step.Index) + "]")
			case isPlainName(step.Name):
				b.WriteString("." + step.Name)
			default:
				b.WriteString("[" + quoted(step.Name) + "]")
			}
		}
	}
}

// escapes are those of the canonical spelling.
var escapes = strings.NewReplacer(`'`, `''`, `\`, `\\`)

func quoted(s string) string { return "'" + escapes.Replace(s) + "'" }
