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

// lex reads the token at offset.
func (p *parser) lex(offset int) (token, error) {
	src := p.source
	for offset < len(src) {
		r, size := utf8.DecodeRuneInString(src[offset:])
		if !unicode.IsSpace(r) {
			break
		}
		offset += size
	}
	t := token{start: offset, end: offset + 1}
	if offset == len(src) {
		return token{kind: endToken, start: offset, end: offset}, nil
	}
	switch c := src[offset]; c {
	case '(':
		t.kind = openToken
		return t, nil
	case ')':
		t.kind = closeToken
		return t, nil
	case ',':
		t.kind = commaToken
		return t, nil
	case '\'':
		text, end, err := p.lexText(offset)
		return token{kind: operandToken, start: offset, end: end, operand: Operand{Kind: Text, Text: text}}, err
	case '=', '!', '<', '>':
		return p.lexComparison(offset)
	case '-', '+', '.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return p.lexNumber(offset)
	}
	if n := nameLength(src[offset:]); n > 0 {
		return p.lexWord(offset, offset+n)
	}
	return t, p.unexpected(offset)
}

// unexpected is about a character that nothing starts with.
func (p *parser) unexpected(offset int) error {
	rest := p.source[offset:]
	switch {
	case rest[0] == '"':
		return p.errorAt(offset, "text is in single quotes: write 'text'")
	case strings.HasPrefix(rest, "&&"):
		return p.errorAt(offset, "write AND for &&")
	case strings.HasPrefix(rest, "||"):
		return p.errorAt(offset, "write OR for ||")
	}
	r, _ := utf8.DecodeRuneInString(rest)
	return p.errorAt(offset, "%q has no meaning here", r)
}

func (p *parser) lexComparison(offset int) (token, error) {
	t := token{kind: compareToken, start: offset, end: offset + 1}
	two := p.source[offset:min(offset+2, len(p.source))]
	switch two {
	case "<=":
		t.op = LessOrEqual
	case ">=":
		t.op = GreaterOrEqual
	case "!=":
		t.op = NotEqual
	case "==":
		return t, p.errorAt(offset, "write = for ==")
	case "<>":
		return t, p.errorAt(offset, "write != for <>")
	default:
		switch two[0] {
		case '=':
			t.op = Equal
		case '<':
			t.op = Less
		case '>':
			t.op = Greater
		default:
			return t, p.errorAt(offset, "write NOT for !, or != for unequal")
		}
		return t, nil
	}
	t.end++
	return t, nil
}

// lexText reads from an opening quote to after the closing one.
func (p *parser) lexText(offset int) (text string, end int, err error) {
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
			return b.String(), i + 1, nil
		case c == '\\':
			return "", i, p.errorAt(i, `a backslash in text is written \\, and a quote '' or \'`)
		default:
			b.WriteByte(c)
		}
	}
	return "", offset, p.errorAt(offset, "this text has no closing quote")
}

func (p *parser) lexNumber(offset int) (token, error) {
	end := offset + 1
	for end < len(p.source) {
		// More than numbers have, for the message: 2026-01-01 is one mistake.
		c := p.source[end]
		if !strings.ContainsRune("+-._", rune(c)) && (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') {
			break
		}
		end++
	}
	text := p.source[offset:end]
	t := token{kind: operandToken, start: offset, end: end}
	// ParseFloat takes more than numbers as JSON has them.
	n, err := strconv.ParseFloat(text, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return t, p.errorAt(offset, "this number is too large: up to 1.7e308 is possible")
	case err != nil || strings.ContainsAny(text, "xXpPnN_") || strings.ContainsRune("+.", rune(text[0])) || strings.HasSuffix(text, "."):
		return t, p.errorAt(offset, "%s is not a number such as 3, -0.5 or 1e6", shown(text))
	}
	t.operand = Operand{Kind: Number, Number: n}
	return t, nil
}

// lexWord reads what starts with a name: a keyword, or a reference with its
// path, in which a keyword is a name like any other.
func (p *parser) lexWord(offset, end int) (token, error) {
	name := p.source[offset:end]
	if t, ok := keywords[strings.ToUpper(name)]; ok {
		t.start, t.end = offset, end
		return t, nil
	}
	if strings.EqualFold(name, asNumber) {
		return p.lexAsNumber(offset, end)
	}
	field, ok := fields[strings.ToLower(name)]
	t := token{kind: operandToken, start: offset, end: end}
	if !ok {
		return t, p.errorAt(offset, "%s", unknownName(name))
	}
	t.operand = Operand{Kind: Reference, Field: field}
	for t.end < len(p.source) {
		var step Step
		var err error
		switch p.source[t.end] {
		case '.':
			n := nameLength(p.source[t.end+1:])
			if n == 0 {
				return t, p.errorAt(t.end+1, "expected a name after the dot; a name with other than letters, digits, _, $ and - is written ['name']")
			}
			step = Step{Name: p.source[t.end+1 : t.end+1+n], Index: NoIndex}
			t.end += 1 + n
		case '[':
			step, t.end, err = p.lexBracket(t.end)
			if err != nil {
				return t, err
			}
		default:
			return t, nil
		}
		if field != Body {
			return t, p.errorAt(offset, "%s is text and has no members; the event's data is $body", field)
		}
		if t.operand.Path = append(t.operand.Path, step); len(t.operand.Path) > maxPath {
			return t, p.errorAt(offset, "this path has more than %d steps", maxPath)
		}
	}
	return t, nil
}

func (p *parser) lexAsNumber(start, offset int) (token, error) {
	open, err := p.lex(offset)
	if err == nil && open.kind != openToken {
		err = p.errorAt(open.start, "expected ( after %s", asNumber)
	}
	if err != nil {
		return open, err
	}
	t, err := p.lex(open.end)
	if err == nil && (t.kind != operandToken || t.operand.Kind != Reference || t.operand.AsNumber) {
		err = p.errorAt(t.start, "expected a field after %s(", asNumber)
	}
	if err != nil {
		return t, err
	}
	end, err := p.lex(t.end)
	if err == nil && end.kind != closeToken {
		err = p.errorAt(end.start, "expected ) after the field")
	}
	t.operand.AsNumber = true
	t.start, t.end = start, end.end
	return t, err
}

// lexBracket reads ['name'] or [index].
func (p *parser) lexBracket(offset int) (step Step, end int, err error) {
	i := offset + 1
	if i < len(p.source) && p.source[i] == '\'' {
		step.Index = NoIndex
		if step.Name, i, err = p.lexText(i); err != nil {
			return step, i, err
		}
	} else {
		for i < len(p.source) && p.source[i] >= '0' && p.source[i] <= '9' {
			i++
		}
		digits := p.source[offset+1 : i]
		if digits == "" {
			return step, i, p.errorAt(i, "expected a 'name' in quotes or an index from 0 after [")
		}
		if step.Index, err = strconv.Atoi(digits); err != nil || step.Index > maxIndex {
			return step, i, p.errorAt(offset+1, "an index is at most %d", maxIndex)
		}
	}
	if i >= len(p.source) || p.source[i] != ']' {
		return step, i, p.errorAt(i, "expected ]")
	}
	return step, i + 1, nil
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
