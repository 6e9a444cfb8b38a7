// Package jsonwalk finds the members and elements of JSON values that are known
// to be valid: it reads structure only, which costs a fraction of a decode, and
// allocates nothing. Validate checks a value beforehand.
package jsonwalk

import (
	"bytes"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Member is one member of a JSON object or one element of an array, as offsets
// into its bytes. The key's quotes lie outside of [KeyStart, KeyEnd), which is
// empty for an element.
type Member struct {
	KeyStart, KeyEnd int
	Start, End       int // the value, without white space around it
}

// Members calls yield for every member of the object, or element of the array,
// at the top of doc, in order, until yield returns false. doc must be one valid
// JSON value; one that is neither has no members.
func Members(doc []byte, yield func(Member) bool) {
	Walk(doc, 0, func(m Member) (end int) {
		m.End = SkipValue(doc, m.Start)
		if !yield(m) {
			return len(doc)
		}
		return m.End
	})
}

// Walk calls visit for every member, or element, of the value at doc[start:]
// and returns the index after that value. visit gets a member without its End,
// which it returns: a visitor that looks into values goes over their bytes once.
func Walk(doc []byte, start int, visit func(m Member) (end int)) (end int) {
	i := skipSpace(doc, start)
	if i >= len(doc) || doc[i] != '{' && doc[i] != '[' {
		return i
	}
	object, closing := doc[i] == '{', doc[i]+2 // in ASCII, the closing bracket is the next but one
	i = skipSpace(doc, i+1)
	for i < len(doc) && doc[i] != closing {
		var m Member
		if object {
			m.KeyStart = i + 1
			i = skipString(doc, i)
			m.KeyEnd = i - 1
			i = skipSpace(doc, i) + 1 // the colon
			i = skipSpace(doc, i)
		}
		m.Start = i
		i = skipSpace(doc, visit(m))
		if i >= len(doc) || doc[i] != ',' {
			break
		}
		i = skipSpace(doc, i+1)
	}
	return min(i+1, len(doc))
}

// MemberBefore returns the member that ends before end, which is the index of
// the comma or brace behind it, and the index of the comma in front of it. comma
// is -1 if that takes a walk from the front: the value is an object or an array,
// or the member is the first. doc must be one valid JSON value.
func MemberBefore(doc []byte, end int) (m Member, comma int) {
	if m.End = trimBack(doc, end); m.End == 0 {
		return Member{}, -1
	}
	switch doc[m.End-1] {
	case '"':
		m.Start = openingQuote(doc, m.End-1)
	case '}', ']', '{':
		return Member{}, -1
	default: // a number or a literal
		m.Start = m.End - 1
		for m.Start > 0 && doc[m.Start-1] != ':' && !isSpace(doc[m.Start-1]) {
			m.Start--
		}
	}
	colon := trimBack(doc, m.Start) - 1
	if colon <= 0 || doc[colon] != ':' {
		return Member{}, -1 // an array's element
	}
	m.KeyEnd = trimBack(doc, colon) - 1
	m.KeyStart = openingQuote(doc, m.KeyEnd) + 1
	comma = trimBack(doc, m.KeyStart-1) - 1
	if comma < 0 || doc[comma] != ',' {
		return Member{}, -1
	}
	return m, comma
}

// trimBack returns the index after the last byte before end that is no white space.
func trimBack(doc []byte, end int) int {
	for end > 0 && isSpace(doc[end-1]) {
		end--
	}
	return end
}

// openingQuote returns the index of the opening quote of the string whose
// closing quote is at i: the next one back that no odd number of backslashes
// escapes.
func openingQuote(doc []byte, i int) int {
	for {
		i = bytes.LastIndexByte(doc[:max(i, 0)], '"')
		slashes := 0
		for i-1-slashes >= 0 && doc[i-1-slashes] == '\\' {
			slashes++
		}
		if i < 0 || slashes%2 == 0 {
			return i
		}
	}
}

// Trim removes JSON white space from both ends.
func Trim(doc []byte) []byte {
	start, end := skipSpace(doc, 0), len(doc)
	for end > start && isSpace(doc[end-1]) {
		end--
	}
	return doc[start:end]
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

func skipSpace(doc []byte, i int) int {
	for i < len(doc) && isSpace(doc[i]) {
		i++
	}
	return i
}

// skipString returns the index after the closing quote of the string that
// starts at i.
func skipString(doc []byte, i int) int {
	for i++; i < len(doc); {
		q := bytes.IndexByte(doc[i:], '"')
		if q < 0 {
			break
		}
		i += q + 1
		// The quote closes the string unless an odd number of backslashes is before it.
		slashes := 0
		for doc[i-2-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
	}
	return len(doc)
}

// SkipValue returns the index after the value that starts at i.
func SkipValue(doc []byte, i int) int {
	if i >= len(doc) {
		return len(doc)
	}
	switch doc[i] {
	case '"':
		return skipString(doc, i)
	case '{', '[':
		depth := 0
		for i < len(doc) {
			switch doc[i] {
			case '"':
				i = skipString(doc, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
				if depth == 0 {
					return i + 1
				}
			}
			i++
		}
		return len(doc)
	}
	for i < len(doc) && doc[i] != ',' && doc[i] != '}' && doc[i] != ']' && !isSpace(doc[i]) {
		i++
	}
	return i
}

// KeyIs reports whether the key of a member, the bytes between its quotes,
// matches an ASCII name as encoding/json matches keys: escapes undone, case
// ignored.
func KeyIs(key []byte, name string) bool {
	if len(key) <= len(name) {
		// Escapes, and the two letters beyond ASCII that fold to ASCII ones, are
		// longer than what they match.
		return len(key) == len(name) && equalFoldASCII(key, name)
	}
	for _, c := range key {
		if c == '\\' || c >= utf8.RuneSelf {
			return bytes.EqualFold(Unescape(make([]byte, 0, len(key)), key), []byte(name))
		}
	}
	return false
}

func equalFoldASCII(key []byte, name string) bool {
	for i, c := range key {
		if d := name[i]; c != d && (c|0x20 != d|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// Unescape appends a valid JSON string, the bytes between its quotes, with its
// escapes undone.
func Unescape(dst, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hexRune(s[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				// One half without the other becomes U+FFFD, as in encoding/json.
				pair := utf8.RuneError
				if i+6 < len(s) && s[i+1] == '\\' && s[i+2] == 'u' {
					pair = utf16.DecodeRune(r, hexRune(s[i+3:]))
				}
				if r = pair; r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		default: // the quote, the backslash, the slash
			dst = append(dst, s[i])
		}
	}
	return dst
}

// hexRune parses four hex digits.
func hexRune(s []byte) rune {
	n, _ := strconv.ParseUint(string(s[:4]), 16, 32)
	return rune(n)
}

// FindMember returns the value of the object's last member with that name, or
// nil: of equal keys the last one wins, as in encoding/json.
func FindMember(doc []byte, name string) (value []byte) {
	Members(doc, func(m Member) bool {
		if KeyIs(doc[m.KeyStart:m.KeyEnd], name) {
			value = doc[m.Start:m.End:m.End]
		}
		return true
	})
	return value
}
