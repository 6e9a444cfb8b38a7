package filter

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// What a filter is bounded by: it comes from outside, is parsed by recursion
// and is evaluated for every event.
const (
	maxLength = 4096 // bytes
	maxDepth  = 32   // of parentheses and NOTs in one another
	maxPath   = 32   // steps
	maxIndex  = 999_999
)

// eventTypes is what `type` can be. A filter that asks for another would pass
// nothing, or everything, for a slip of the pen.
var eventTypes = []string{"TopologyOperation", "UdfCustom", "SensorChange", "SpaceChange", "DeviceMessage"}

// Parse reads a filter. What is wrong with it comes back as an *Error.
func Parse(source string) (*Expr, error) {
	p := &parser{source: source}
	switch {
	case len(source) > maxLength:
		return nil, newError(source, 0, "the filter is longer than %d bytes", maxLength)
	case !utf8.ValidString(source):
		return nil, newError(source, 0, "the filter is not valid UTF-8")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.next.kind == endToken {
		return nil, p.errorAt(0, "the filter is empty; leave it out to take every event")
	}
	e, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if p.next.kind != endToken {
		return nil, p.expected("AND, OR or the end")
	}
	return e, nil
}

// parser has the token that comes next.
type parser struct {
	source string
	next   token
}

func (p *parser) errorAt(offset int, format string, args ...any) error {
	return newError(p.source, offset, format, args...)
}

func (p *parser) expected(what string) error {
	found := "the filter ends here"
	if p.next.kind != endToken {
		found = "found " + shown(p.source[p.next.start:p.next.end])
	}
	return p.errorAt(p.next.start, "expected %s, %s", what, found)
}

func (p *parser) advance() (err error) {
	p.next, err = p.lex(p.next.end)
	return err
}

func (p *parser) atWord(op Op) bool { return p.next.kind == wordToken && p.next.op == op }

func (p *parser) or(depth int) (*Expr, error)  { return p.chain(Or, p.and, depth) }
func (p *parser) and(depth int) (*Expr, error) { return p.chain(And, p.not, depth) }

// chain reads one or more operands with op between them. One of the same op,
// in parentheses, becomes part of it: it means the same, and then there is one
// form of it.
func (p *parser) chain(op Op, operand func(int) (*Expr, error), depth int) (*Expr, error) {
	first, err := operand(depth)
	if err != nil || !p.atWord(op) {
		return first, err
	}
	e := &Expr{Op: op}
	for arg := first; ; {
		if arg.Op == op {
			e.Args = append(e.Args, arg.Args...)
		} else {
			e.Args = append(e.Args, arg)
		}
		if !p.atWord(op) {
			return e, nil
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		if arg, err = operand(depth); err != nil {
			return nil, err
		}
	}
}

func (p *parser) not(depth int) (*Expr, error) {
	if !p.atWord(Not) {
		return p.primary(depth)
	}
	if depth == maxDepth {
		return nil, p.tooDeep()
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	arg, err := p.not(depth + 1)
	if err != nil {
		return nil, err
	}
	return &Expr{Op: Not, Args: []*Expr{arg}}, nil
}

func (p *parser) tooDeep() error {
	return p.errorAt(p.next.start, "parentheses and NOTs in one another go more than %d deep", maxDepth)
}

func (p *parser) primary(depth int) (*Expr, error) {
	t := p.next
	switch {
	case t.kind == openToken:
		if depth == maxDepth {
			return nil, p.tooDeep()
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		e, err := p.or(depth + 1)
		if err != nil {
			return nil, err
		}
		if p.next.kind != closeToken {
			return nil, p.expected("AND, OR or )")
		}
		return e, p.advance()
	case t.kind == wordToken && t.op >= StartsWith:
		return p.function()
	case t.kind == operandToken:
		return p.comparison()
	}
	return nil, p.expected("a comparison, such as type = 'SensorChange'")
}

// comparison reads `a = b`, or a true or false that stands alone.
func (p *parser) comparison() (*Expr, error) {
	left := p.next
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.next.kind != compareToken {
		switch {
		case left.operand.Kind == Bool:
			return &Expr{Op: Const, Value: left.operand.Bool}, nil
		case left.operand.Kind == Reference && left.operand.Field == Body:
			return nil, p.expected("=, !=, <, <=, > or >= (a yes or no is tested with = true)")
		}
		return nil, p.expected("=, !=, <, <=, > or >=")
	}
	op := p.next.op
	if err := p.advance(); err != nil {
		return nil, err
	}
	right, err := p.operand("a value after " + op.String())
	if err != nil {
		return nil, err
	}
	return p.check(op, left, right)
}

// function reads `CONTAINS(a, b)`.
func (p *parser) function() (*Expr, error) {
	op := p.next.op
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.next.kind != openToken {
		return nil, p.expected("( after " + op.String())
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	left, err := p.operand("a field after " + op.String() + "(")
	if err != nil {
		return nil, err
	}
	if p.next.kind != commaToken {
		return nil, p.expected("a comma and the text to look for")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	right, err := p.operand("the text to look for")
	if err != nil {
		return nil, err
	}
	if p.next.kind != closeToken {
		return nil, p.expected(")")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	return p.check(op, left, right)
}

func (p *parser) operand(what string) (token, error) {
	t := p.next
	if t.kind != operandToken {
		return t, p.expected(what)
	}
	return t, p.advance()
}

// check refuses what can be seen to make no sense: it would be false, or true,
// whatever the event.
func (p *parser) check(op Op, left, right token) (*Expr, error) {
	l, r := left.operand, right.operand
	if l.Kind != Reference && r.Kind != Reference {
		return nil, p.errorAt(left.start, "one of the two must be a field: %s", fieldList)
	}
	for _, side := range []token{left, right} {
		if op >= StartsWith && side.operand.AsNumber {
			return nil, p.errorAt(side.start, "%s is about text, and AS_NUMBER makes a number of it", op)
		}
	}
	for _, pair := range [2][2]token{{left, right}, {right, left}} {
		field, literal := pair[0].operand, pair[1].operand
		if literal.Kind == Reference {
			continue
		}
		at := pair[1].start
		switch {
		case field.AsNumber && op < StartsWith && literal.Kind != Number:
			return nil, p.errorAt(at, "%s is a number, %s is none", shown(field.String()), shown(literal.String()))
		case op >= StartsWith && literal.Kind != Text:
			return nil, p.errorAt(at, "%s is about text: write '%s'", op, literal)
		case op >= Less && literal.Kind != Text && literal.Kind != Number:
			return nil, p.errorAt(at, "%s is for numbers and text: %s only goes with = and !=", op, literal)
		case field.Field != Body && !field.AsNumber && (literal.Kind == Number || literal.Kind == Bool):
			return nil, p.errorAt(at, "%s is text: write '%s'", field.Field, literal)
		case field.Field == Type && op <= NotEqual && literal.Kind == Text && !slices.Contains(eventTypes, literal.Text):
			return nil, p.errorAt(at, "%s is not an event type; those are %s", shown(literal.String()), strings.Join(eventTypes, ", "))
		}
	}
	return &Expr{Op: op, Left: l, Right: r}, nil
}
