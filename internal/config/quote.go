package config

import (
	"regexp"
	"strings"

	"twinegress/internal/untrusted"
)

// maxQuoted is how many characters of a wrong value an error shows: enough to
// recognize it.
const maxQuoted = 100

// quoted quotes a value that isn't allowed.
func quoted(s string) string { return `"` + untrusted.Short(s, maxQuoted) + `"` }

// keyLike matches what looks like the name of a key, or of a variable; wordLike
// what looks like a role.
var (
	keyLike  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,63}$`)
	wordLike = regexp.MustCompile(`^[A-Za-z]{0,16}$`)
)

// namedKey returns a key that doesn't exist as an error shows it. What isn't like
// a key may be a value in the wrong place, and so a secret; what stands below a
// secret is a part of it.
func namedKey(path string) string {
	for _, k := range keys {
		if strings.HasPrefix(path, k.path+".") {
			return k.path
		}
	}
	if !keyLike.MatchString(path) {
		return "…"
	}
	return path
}

// quotedWord quotes a value only if it looks like one of a few words: where a
// token's role is wanted, the token itself may stand.
func quotedWord(s string) string {
	if !wordLike.MatchString(s) {
		return "what is there"
	}
	return `"` + s + `"`
}

// yamlQuote matches what YAML's errors quote of a file. It is greedy, since what
// is quoted may have quotes in it.
var yamlQuote = regexp.MustCompile("(?s)[`'\"].*[`'\"]")

// yamlError returns the text of YAML's error without what it quotes: of a password
// that begins with *, that would be the password.
func yamlError(err error) string {
	return untrusted.Text(yamlQuote.ReplaceAllString(err.Error(), "…"))
}
