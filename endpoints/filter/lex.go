package filter

import (
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind uint8

const (
	endToken tokenKind = iota
	wordToken
	operandToken
	compareToken
	openToken
	closeToken
	commaToken
)

// token is a piece of a filter. A word is a keyword or a function's name.
type token struct {
	kind       tokenKind
	start, end int
	op         Op // compareToken, and wordToken unless it is Const
	operand    Operand
}

var keywords = map[string]token{
	"AND":         {kind: wordToken, op: And},
	"OR":          {kind: wordToken, op: Or},
	"NOT":         {kind: wordToken, op: Not},
	"STARTS_WITH": {kind: wordToken, op: StartsWith},
	"ENDS_WITH":   {kind: wordToken, op: EndsWith},
	"CONTAINS":    {kind: wordToken, op: Contains},
	"NULL":        {kind: operandToken, operand: Operand{Kind: Null}},
	"TRUE":        {kind: operandToken, operand: Operand{Kind: Bool, Bool: true}},
	"FALSE":       {kind: operandToken, operand: Operand{Kind: Bool, Bool: false}},
}

// asNumber is no keyword as the others are: with what it stands around it is
// one operand.
const asNumber = "AS_NUMBER"

// fields by their names in lower case.
var fields = map[string]Field{
	"type":            Type,
	"eventtype":       Type,
	"subject":         Subject,
	"id":              ID,
	"time":            Time,
	"eventtime":       Time,
	"dataversion":     DataVersion,
	"metadataversion": MetadataVersion,
	"topic":           Topic,
	"$body":           Body,
}

const fieldList = "type, subject, id, time, dataVersion, metadataVersion, topic and $body"

// symbols are the tokens that are no words, and what other languages write in
// their place; a longer one comes before its own beginning.
var symbols = []struct {
	text    string
	kind    tokenKind
	op      Op
	mistake string
}{
	{text: "(", kind: openToken},
	{text: ")", kind: closeToken},
	{text: ",", kind: commaToken},
	{text: "<=", kind: compareToken, op: LessOrEqual},
	{text: ">=", kind: compareToken, op: GreaterOrEqual},
	{text: "!=", kind: compareToken, op: NotEqual},
	{text: "==", mistake: "write = for =="},
	{text: "<>", mistake: "write != for <>"},
	{text: "=", kind: compareToken, op: Equal},
	{text: "<", kind: compareToken, op: Less},
	{text: ">", kind: compareToken, op: Greater},
	{text: "!", mistake: "write NOT for !, or != for unequal"},
	{text: "&&", mistake: "write AND for &&"},
	{text: "||", mistake: "write OR for ||"},
	{text: `"`, mistake: "text is in single quotes: write 'text'"},
}

// lex reads the token at offset.
func (p *parser) lex(offset int) token {
	rest := strings.TrimLeftFunc(p.source[offset:], unicode.IsSpace)
	offset = len(p.source) - len(rest)
	if rest == "" {
		return token{start: offset, end: offset}
	}
	for _, s := range symbols {
		if strings.HasPrefix(rest, s.text) {
			if s.mistake != "" {
				p.fail(offset, "%s", s.mistake)
			}
			return token{kind: s.kind, start: offset, end: offset + len(s.text), op: s.op}
		}
	}
	if rest[0] == '\'' {
		text, end := p.lexText(offset)
		return token{kind: operandToken, start: offset, end: end, operand: Operand{Kind: Text, Text: text}}
	}
	if strings.IndexByte("-+.0123456789", rest[0]) >= 0 {
		return p.lexNumber(offset)
	}
	n := nameLength(rest)
	if n == 0 {
		r, _ := utf8.DecodeRuneInString(rest)
		p.fail(offset, "%q has no meaning here", r)
	}
	return p.lexWord(offset, offset+n)
}

// lexText reads from an opening quote to after the closing one.
func (p *parser) lexText(offset int) (text string, end int) {
	var b strings.Builder
	for i := offset + 1; i < len(p.source); i++ {
		next := byte(0)
		if i+1 < len(p.source) {
			next = p.source[i+1]
		}
		switch c := p.source[i]; {
		case c == '\'' && next == '\'', c == '\\' && (next == '\'' || next == '\\'):
			b.WriteByte(next)
			i++
		case c == '\'':
			return b.String(), i + 1
		case c == '\\':
			p.fail(i, `a backslash in text is written \\, and a quote '' or \'`)
			return "", i
		default:
			b.WriteByte(c)
		}
	}
	p.fail(offset, "this text has no closing quote")
	return "", offset
}

// numberLike is more than numbers have, for the message: 2026-01-01 is one mistake.
const numberLike = "+-._0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

func (p *parser) lexNumber(offset int) token {
	rest := p.source[offset:]
	text := rest[:len(rest)-len(strings.TrimLeft(rest, numberLike))]
	// ParseFloat takes more than numbers as JSON has them.
	n, err := strconv.ParseFloat(text, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		p.fail(offset, "this number is too large: up to 1.7e308 is possible")
	case err != nil || strings.ContainsAny(text, "xXpPnN_") || strings.ContainsRune("+.", rune(text[0])) || strings.HasSuffix(text, "."):
		p.fail(offset, "%s is not a number such as 3, -0.5 or 1e6", shown(text))
	}
	return token{kind: operandToken, start: offset, end: offset + len(text), operand: Operand{Kind: Number, Number: n}}
}

// lexWord reads what starts with a name: a keyword, or a reference with its
// path, in which a keyword is a name like any other.
func (p *parser) lexWord(offset, end int) token {
	name := p.source[offset:end]
	if t, ok := keywords[strings.ToUpper(name)]; ok {
		t.start, t.end = offset, end
		return t
	}
	if strings.EqualFold(name, asNumber) {
		return p.lexAsNumber(offset, end)
	}
	field, ok := fields[strings.ToLower(name)]
	if !ok {
		p.fail(offset, "%s", unknownName(name))
	}
	t := token{kind: operandToken, start: offset, end: end, operand: Operand{Kind: Reference, Field: field}}
	for t.end < len(p.source) && p.err == nil {
		var step Step
		switch p.source[t.end] {
		case '.':
			n := nameLength(p.source[t.end+1:])
			if n == 0 {
				p.fail(t.end+1, "expected a name after the dot; a name with other than letters, digits, _, $ and - is written ['name']")
			}
			step = Step{Name: p.source[t.end+1 : t.end+1+n], Index: NoIndex}
			t.end += 1 + n
		case '[':
			step, t.end = p.lexBracket(t.end)
		default:
			return t
		}
		if field != Body {
			p.fail(offset, "%s is text and has no members; the event's data is $body", field)
		}
		if t.operand.Path = append(t.operand.Path, step); len(t.operand.Path) > maxPath {
			p.fail(offset, "this path has more than %d steps", maxPath)
		}
	}
	return t
}

func (p *parser) lexAsNumber(start, offset int) token {
	open := p.lex(offset)
	if open.kind != openToken {
		p.fail(open.start, "expected ( after %s", asNumber)
	}
	t := p.lex(open.end)
	if t.kind != operandToken || t.operand.Kind != Reference || t.operand.AsNumber {
		p.fail(t.start, "expected a field after %s(", asNumber)
	}
	end := p.lex(t.end)
	if end.kind != closeToken {
		p.fail(end.start, "expected ) after the field")
	}
	t.operand.AsNumber = true
	t.start, t.end = start, end.end
	return t
}

// lexBracket reads ['name'] or [index].
func (p *parser) lexBracket(offset int) (step Step, end int) {
	i := offset + 1
	if i < len(p.source) && p.source[i] == '\'' {
		step.Index = NoIndex
		step.Name, i = p.lexText(i)
	} else {
		digits := p.source[i : len(p.source)-len(strings.TrimLeft(p.source[i:], "0123456789"))]
		var err error
		if step.Index, err = strconv.Atoi(digits); digits == "" {
			p.fail(i, "expected a 'name' in quotes or an index from 0 after [")
		} else if err != nil || step.Index > maxIndex {
			p.fail(i, "an index is at most %d", maxIndex)
		}
		i += len(digits)
	}
	if i >= len(p.source) || p.source[i] != ']' {
		p.fail(i, "expected ]")
		return step, i
	}
	return step, i + 1
}

// unknownName says what was probably meant.
func unknownName(name string) string {
	switch strings.ToLower(name) {
	case "data", "body":
		return "the event's data is written $body"
	case "startswith", "endswith":
		return "write STARTS_WITH or ENDS_WITH"
	case "asnumber", "to_number", "number":
		return "write AS_NUMBER"
	case "is", "is_null", "isnull", "is_defined", "isdefined":
		return "write … = null or … != null"
	case "in", "like":
		return shown(name) + " is not known; write it with =, OR, STARTS_WITH, ENDS_WITH or CONTAINS"
	case "source", "dataschema", "datacontenttype", "specversion":
		return name + " is a CloudEvents field, which these events don't have; fields are " + fieldList
	}
	return shown(name) + " is not known; text is in single quotes, and fields are " + fieldList
}

// nameLength is the length of the plain name at the start of s.
func nameLength(s string) int {
	for i, r := range s {
		if r != '_' && r != '$' && r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return i
		}
	}
	return len(s)
}

func isPlainName(s string) bool { return s != "" && nameLength(s) == len(s) }

// shown is a piece of a filter, short enough for a message of one line.
func shown(s string) string {
	const most = 24
	if n := utf8.RuneCountInString(s); n > most {
		s = string([]rune(s)[:most]) + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.IsSpace(r) {
			return ' '
		}
		return r
	}, s)
}
