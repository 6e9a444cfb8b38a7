// Package untrusted makes text from outside fit to be stored and shown: what a
// service, a broker or a client says reaches a log, a status, a reply, a dead
// letter or a terminal only through it.
package untrusted

import (
	"encoding/base64"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// MaxLength is how many characters of a text are kept.
	MaxLength = 1000
	// Masked stands where a secret was.
	Masked = "***"

	// maxRead is how many bytes of a text are looked at: what is cut off costs
	// nothing, however long it is. It has room for MaxLength characters of any
	// width.
	maxRead = MaxLength * utf8.UTFMax
	// minSecret is the length of the shortest secret that is masked. A shorter
	// one would mask what is not it, and is none.
	minSecret = 6
)

// shapes are secrets that are known by their form: a JWT, and what follows a
// name that has a secret for its value. A secret of another endpoint, or one that
// was changed meanwhile, is not among those that the caller knows.
var shapes = regexp.MustCompile(`eyJ[\w-]{8,}\.[\w-]+\.[\w-]*` +
	`|(?i:(sharedaccesskey|accesskey|aeg-sas-key|sharedaccesssignature|sig|password)(\s*[=:]\s*|%3d)"?)[^\s;&"',<>]{4,}`)

// Masker masks the secrets that its owner knows. It may be used by several
// goroutines. The nil Masker knows none.
type Masker struct {
	forms   *strings.Replacer
	longest int // bytes of the longest form
}

// NewMasker returns a masker of secrets, in each form in which a peer that read
// one may repeat it: as it is, without its padding, escaped for a URL, for JSON, or
// in base64.
func NewMasker(secrets ...string) *Masker {
	var all []string
	for _, s := range secrets {
		if len(s) >= minSecret {
			all = append(all, forms(s)...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	// The longest first: a replacer takes the first that matches, and one secret
	// may begin with another.
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	all = slices.Compact(all)
	pairs := make([]string, 0, 2*len(all))
	for _, form := range all {
		pairs = append(pairs, form, Masked)
	}
	return &Masker{forms: strings.NewReplacer(pairs...), longest: len(all[0])}
}

func forms(s string) []string {
	query := url.QueryEscape(s)
	all := []string{
		s, query, url.PathEscape(s), lowerEscapes(query), lowerEscapes(url.PathEscape(s)),
		strings.ReplaceAll(s, "/", `\/`), jsonEscapes(s),
	}
	if bare := strings.TrimRight(s, "="); len(bare) >= minSecret {
		all = append(all, bare)
		for _, plus := range pluses {
			all = append(all, strings.ReplaceAll(bare, "+", plus))
		}
	}
	// What base64 makes of a secret depends on how many bytes come before it,
	// modulo three, and at its ends on its neighbours.
	for before := range 3 {
		padded := strings.Repeat("\x00", before) + s
		whole := len(padded) / 3 * 3
		skip := (before*8 + 5) / 6
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			if form := encoding.EncodeToString([]byte(padded[:whole]))[skip:]; len(form) >= minSecret {
				all = append(all, form)
			}
		}
	}
	return all
}

var escape = regexp.MustCompile(`%[0-9A-F]{2}`)

func lowerEscapes(s string) string { return escape.ReplaceAllStringFunc(s, strings.ToLower) }

// pluses are how .NET and others write a plus sign, of all characters of a key, in
// JSON and in HTML.
var pluses = []string{`\u002B`, `\u002b`, "&#x2B;", "&#43;"}

// jsonEscapes returns s as encoders write it that escape what HTML knows.
func jsonEscapes(s string) string {
	return strings.NewReplacer("+", `\u002b`, "/", `\/`, "=", `\u003d`, "&", `\u0026`, "<", `\u003c`, ">", `\u003e`, "'", `\u0027`).Replace(s)
}

// Text returns a text from outside, at most MaxLength characters of it, with
// secrets masked and whatever could steer a terminal or hide in a line escaped.
func Text(s string) string { return (*Masker)(nil).Text(s) }

// Short returns Text, at most so many characters of it.
func Short(s string, most int) string {
	s = Text(s)
	if all := []rune(s); len(all) > most {
		s = string(all[:most]) + "…"
	}
	return s
}

// Mask returns s with the secrets masked, and whole otherwise: for who bounds and
// escapes it. If s is cut, what may be the beginning of a secret is taken from its
// end.
func (m *Masker) Mask(s string, cut bool) string {
	if m != nil {
		s = m.forms.Replace(s)
		if cut { // a secret may have been cut in two: what is left of it is at the end
			s = s[:max(0, len(s)-m.longest)]
		}
	}
	if !mayMatchShapes(s) {
		return s
	}
	return shapes.ReplaceAllString(s, "$1$2"+Masked)
}

// shapeNames are the names in shapes, in lower case.
var shapeNames = []string{"sharedaccesskey", "accesskey", "aeg-sas-key", "sharedaccesssignature", "sig", "password"}

// mayMatchShapes reports whether s has what each match of shapes begins with. Few
// texts do, and to find that out takes a hundredth of the time of the expression.
func mayMatchShapes(s string) bool {
	if strings.Contains(s, "eyJ") {
		return true
	}
	lower := strings.ReplaceAll(strings.ToLower(s), "ſ", "s") // as regexp folds it
	for _, name := range shapeNames {
		for rest := lower; ; {
			_, after, found := strings.Cut(rest, name)
			if !found {
				break
			}
			if after != "" && strings.ContainsRune("=:% \t\n\f\r", rune(after[0])) {
				return true
			}
			rest = after
		}
	}
	return false
}

// Text is the function of the same name, and masks what m knows.
func (m *Masker) Text(s string) string {
	cut := len(s) > maxRead
	if cut {
		s = s[:maxRead]
	}
	s = m.Mask(s, cut)

	var b strings.Builder
	b.Grow(min(len(s), MaxLength))
	n := 0
	for i, r := range s {
		shown := shown(s[i:], r)
		if n += utf8.RuneCountInString(shown); n > MaxLength {
			cut = true
			break
		}
		b.WriteString(shown)
	}
	if cut {
		b.WriteString("…")
	}
	if m != nil { // the end of an escape may complete what isn't whole in s
		return m.forms.Replace(b.String())
	}
	return b.String()
}
