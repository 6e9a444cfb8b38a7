package endpoints_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

// ruleFiles contain the rules about an endpoint: their texts are violations.
var ruleFiles = []string{"validate.go", "set.go", "types.go", "connstring.go", "identity.go", "decode.go", "mask.go", "position.go"}

// elsewhere are the beginnings of those that no body can cause, and why.
var elsewhere = map[string]string{
	"endpoints[] ()": "how an endpoint of the file is called",
	"must be a UUID": "an id in a body is ignored",
	"is masked: give the key itself in place of":  "a mask stands for the stored key, or is refused before keys are looked at",
	"must be an array of endpoints":               "the API takes one endpoint, the endpoints file a list",
	" endpoints are too many: there may be ":      "one body is one endpoint",
	"must be earliest, latest, cancel, or a time": "a seek in a body is ignored; the file's and a record's are not",
	"must be a time with its zone, as a seek":     "a seek in a body is ignored; the file's and a record's are not",
}

// rule is one message of the rules: its fixed parts, in their order.
type rule struct {
	parts []string
	at    token.Position
}

func (r rule) String() string { return strings.Join(r.parts, "") }

// among reports whether a violation is what the rule says.
func (r rule) among(said endpoints.ValidationErrors) bool {
	quoted := make([]string, len(r.parts))
	for i, part := range r.parts {
		quoted[i] = regexp.QuoteMeta(part)
	}
	text := regexp.MustCompile(strings.Join(quoted, ".*"))
	return slices.ContainsFunc(said, func(v endpoints.Violation) bool { return text.MatchString(v.String()) })
}

// A rule that is added to the source without a row that tries it fails here:
// every message in the source is in some violation.
func TestEveryRuleIsTried(t *testing.T) {
	var said endpoints.ValidationErrors
	for _, stored := range requests {
		for _, v := range violations() {
			said = append(said, v.refuse(t, stored)...)
		}
	}
	used := make(map[string]bool)
	rules := rulesOf(t)
	for _, r := range rules {
		tried := r.among(said)
		exempt := false
		for begin, why := range elsewhere {
			if strings.HasPrefix(r.String(), begin) {
				exempt, used[begin] = true, true
				if tried {
					t.Errorf("%s: %q is tried, but was said to be for elsewhere: %s", r.at, r, why)
				}
			}
		}
		if !tried && !exempt {
			t.Errorf("%s: no row tries %q", r.at, r)
		}
	}
	for begin := range elsewhere {
		if !used[begin] {
			t.Errorf("nothing says %q any more", begin)
		}
	}
	if len(rules) < 60 {
		t.Errorf("only %d rules were found: this test no longer understands the source", len(rules))
	}
}

// rulesOf finds every text of the rule files that is a sentence and not a name, and
// the enumerations.
func rulesOf(t *testing.T) (rules []rule) {
	t.Helper()
	files := token.NewFileSet()
	for _, name := range ruleFiles {
		file, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		storetest.Must(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			parts := fixedParts(n)
			if isProse(strings.Join(parts, "")) {
				rules = append(rules, rule{parts, files.Position(n.Pos())})
			}
			return len(parts) == 0
		})
	}
	for f := range reflect.TypeFor[endpoints.Endpoint]().Fields() {
		if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); f.Tag.Get("enum") != "" && f.Type.Kind() == reflect.String {
			rules = append(rules, rule{parts: []string{key + ": unknown value"}})
		}
	}
	return rules
}

// fixedParts returns the parts of a text that are the same every time, and none if
// n is no text.
func fixedParts(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		if n.Op == token.ADD {
			return append(fixedParts(n.X), fixedParts(n.Y)...)
		}
	case *ast.BasicLit:
		if text, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
			return slices.DeleteFunc(verb.Split(text, -1), func(part string) bool { return part == "" })
		}
	}
	return nil
}

var verb = regexp.MustCompile(`%[sdvwq]`)

func isProse(s string) bool {
	return strings.ContainsFunc(s, unicode.IsSpace) && strings.ContainsFunc(s, unicode.IsLetter) && !strings.Contains(s, "\x00")
}
