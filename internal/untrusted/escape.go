package untrusted

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Escape returns all of a text, with whatever could steer a terminal or hide in a
// line escaped, line breaks too. It masks and cuts nothing: it is for what the
// program itself keeps, such as an endpoint's filter, and people read.
func Escape(s string) string {
	if !strings.ContainsFunc(s, odd) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		b.WriteString(shown(s[i:], r))
	}
	return b.String()
}

func odd(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// shown returns how r, the first character of s, is shown.
func shown(s string, r rune) string {
	switch {
	case r == utf8.RuneError && !strings.HasPrefix(s, "\uFFFD"):
		return fmt.Sprintf(`\x%02x`, s[0])
	case unicode.IsPrint(r):
		return string(r)
	case r < 0x10000:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}

// EscapeJSON escapes what isn't printable, but for line breaks and tabs, in the form
// of JSON: in a string of JSON it stays what it is.
func EscapeJSON(s string) string {
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"): // no UTF-8
			b.WriteString(`\ufffd`)
		case r == utf8.RuneError || !unprintable(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func unprintable(r rune) bool {
	return !unicode.IsPrint(r) && r != '\n' && r != '\t' || r == utf8.RuneError
}
