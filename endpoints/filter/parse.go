package filter

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
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
		p.fail(0, "the filter is longer than %d bytes", maxLength)
	case !utf8.ValidString(source):
		p.fail(0, "the filter is not valid UTF-8")
	}
	if i := strings.IndexFunc(source, isHidden); i >= 0 {
		r, _ := utf8.DecodeRuneInString(source[i:])
		p.fail(i, "%U has no place in a filter: it can't be seen", r)
	}
	p.advance()
	if p.next.kind == endToken {
		p.fail(0, "the filter is empty; leave it out to take every event")
	}
	e := p.or(0)
	if p.next.kind != endToken {
		p.expected("AND, OR or the end")
	}
	if p.err != nil {
		return nil, p.err
	}
	return e, nil
}

// isHidden reports whether a character can't be seen, or steers what shows it: people
// read filters in logs and on terminals. Lines and spaces of any kind may be.
func isHidden(r rune) bool {
	return !unicode.IsPrint(r) && !strings.ContainsRune("\t\r\n", r) && !unicode.Is(unicode.Zs, r)
}

// parser has the token that comes next. From the first mistake on the filter
// ends for it: what its methods return then is of no use, but never nil. It has a method for each
// rule of the grammar.
type parser struct {
	source string
	next   token
	err    *Error // the first mistake
}

func (p *parser) fail(offset int, format string, args ...any) {
	if p.err == nil {
		p.err = &Error{Column: utf8.RuneCountInString(p.source[:offset]) + 1, Message: fmt.Sprintf(format, args...), source: p.source}
		p.next = token{}
	}
}

func (p *parser) expected(what string) {
	found := "the filter ends here"
	if p.next.kind != endToken {
		found = "found " + shown(p.source[p.next.start:p.next.end])
	}
	p.fail(p.next.start, "expected %s, %s", what, found)
}

func (p *parser) advance() {
	if p.err == nil {
		if t := p.lex(p.next.end); p.err == nil {
			p.next = t
		}
	}
}

// take returns the next token, which must be of this kind.
func (p *parser) take(kind tokenKind, what string) token {
	t := p.next
	if t.kind != kind {
		p.expected(what)
	}
	p.advance()
	return t
}

func (p *parser) atWord(op Op) bool { return p.next.kind == wordToken && p.next.op == op }

func (p *parser) or(depth int) *Expr  { return p.chain(Or, p.and, depth) }
func (p *parser) and(depth int) *Expr { return p.chain(And, p.not, depth) }

// chain reads one or more operands with op between them. One of the same op,
// in parentheses, becomes part of it: it means the same, and then there is one
// form of it.
func (p *parser) chain(op Op, operand func(int) *Expr, depth int) *Expr {
	first := operand(depth)
	if !p.atWord(op) {
		return first
	}
	e := &Expr{Op: op}
	for arg := first; ; arg = operand(depth) {
		if arg.Op == op {
			e.Args = append(e.Args, arg.Args...)
		} else {
			e.Args = append(e.Args, arg)
		}
		if !p.atWord(op) {
			return e
		}
		p.advance()
	}
}

func (p *parser) not(depth int) *Expr {
	if !p.atWord(Not) {
		return p.primary(depth)
	}
	p.enter(depth)
	return &Expr{Op: Not, Args: []*Expr{p.not(depth + 1)}}
}

// enter takes the token that leads one deeper.
func (p *parser) enter(depth int) {
	if depth == maxDepth {
		p.fail(p.next.start, "parentheses and NOTs in one another go more than %d deep", maxDepth)
	}
	p.advance()
}

func (p *parser) primary(depth int) *Expr {
	switch t := p.next; {
	case t.kind == openToken:
		p.enter(depth)
		e := p.or(depth + 1)
		p.take(closeToken, "AND, OR or )")
		return e
	case t.kind == wordToken && t.op >= StartsWith:
		return p.function()
	case t.kind == operandToken:
		return p.comparison()
	}
	p.expected("a comparison, such as type = 'SensorChange'")
	return &Expr{}
}

// comparison reads `a = b`, or a true or false that stands alone.
func (p *parser) comparison() *Expr {
	left := p.next
	p.advance()
	operators := "=, !=, <, <=, > or >="
	switch {
	case p.next.kind == compareToken:
	case left.operand.Kind == Bool:
		return &Expr{Op: Const, Value: left.operand.Bool}
	case left.operand.Kind == Reference && left.operand.Field == Body:
		operators += " (a yes or no is tested with = true)"
	}
	op := p.take(compareToken, operators).op
	right := p.take(operandToken, "a value after "+op.String())
	return p.check(op, left, right)
}

// function reads `CONTAINS(a, b)`.
func (p *parser) function() *Expr {
	op := p.next.op
	p.advance()
	p.take(openToken, "( after "+op.String())
	left := p.take(operandToken, "a field after "+op.String()+"(")
	p.take(commaToken, "a comma and the text to look for")
	right := p.take(operandToken, "the text to look for")
	p.take(closeToken, ")")
	return p.check(op, left, right)
}

// check refuses what can be seen to make no sense: it would be false, or true,
// whatever the event.
func (p *parser) check(op Op, left, right token) *Expr {
	l, r := left.operand, right.operand
	if l.Kind != Reference && r.Kind != Reference {
		p.fail(left.start, "one of the two must be a field: %s", fieldList)
	}
	for _, side := range []token{left, right} {
		if op >= StartsWith && side.operand.AsNumber {
			p.fail(side.start, "%s is about text, and AS_NUMBER makes a number of it", op)
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
			p.fail(at, "%s is a number, %s is none", shown(field.String()), shown(literal.String()))
		case op >= StartsWith && literal.Kind != Text:
			p.fail(at, "%s is about text: write '%s'", op, literal)
		case op >= Less && literal.Kind != Text && literal.Kind != Number:
			p.fail(at, "%s is for numbers and text: %s only goes with = and !=", op, literal)
		case field.Field != Body && !field.AsNumber && (literal.Kind == Number || literal.Kind == Bool):
			p.fail(at, "%s is text: write '%s'", field.Field, literal)
		case field.Field == Type && op <= NotEqual && literal.Kind == Text && !slices.Contains(eventTypes, literal.Text):
			p.fail(at, "%s is not an event type; those are %s", shown(literal.String()), strings.Join(eventTypes, ", "))
		}
	}
	return &Expr{Op: op, Left: l, Right: r}
}
