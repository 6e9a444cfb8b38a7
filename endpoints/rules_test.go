package endpoints_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"iter"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"twinegress/endpoints"
)

// ruleFiles contain the rules about an endpoint: their texts are violations.
var ruleFiles = []string{"validate.go", "set.go", "types.go", "connstring.go", "identity.go", "decode.go", "mask.go"}

// elsewhere are the beginnings of those that no body can cause, and why.
var elsewhere = map[string]string{
	"id: must be a UUID":                         "an id in a body is ignored",
	"id: is already that of":                     "every endpoint of the API gets an id of its own",
	"is masked: give the key itself in place of": "a mask stands for the stored key, or is refused before keys are looked at",
	"must be an array of endpoints":              "the API takes one endpoint, the endpoints file a list",
	"endpoints[] ()":                             "how an endpoint of the file is called",
}

// rule is one message of the rules: its fixed parts, in their order, and the
// field if the source names it.
type rule struct {
	field string // "": not said where the message is
	parts []string
	at    token.Position
}

func (r rule) String() string {
	text := strings.Join(r.parts, "")
	if r.field != "" {
		text = r.field + ": " + text
	}
	return text
}

// among reports whether a violation is what the rule says.
func (r rule) among(said endpoints.ValidationErrors) bool {
	quoted := make([]string, len(r.parts))
	for i, part := range r.parts {
		quoted[i] = regexp.QuoteMeta(part)
	}
	text := regexp.MustCompile(strings.Join(quoted, ".*"))
	return slices.ContainsFunc(said, func(v endpoints.Violation) bool {
		return (r.field == "" || r.field == v.Field) && text.MatchString(v.Message)
	})
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

// rulesOf finds every text of the rule files that is a sentence and not a name.
func rulesOf(t *testing.T) (rules []rule) {
	t.Helper()
	files := token.NewFileSet()
	for _, name := range ruleFiles {
		file, err := parser.ParseFile(files, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		add := func(field string, text ast.Expr) {
			if parts := fixedParts(text); isProse(strings.Join(parts, "")) {
				rules = append(rules, rule{field, parts, files.Position(text.Pos())})
			}
		}
		var visit func(field string, n ast.Node)
		visit = func(field string, n ast.Node) {
			ast.Inspect(n, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.ImportSpec:
					return false
				case *ast.CallExpr:
					// What a call is about goes for all that is in it.
					about := fieldAmong(n.Args)
					if about == "" || about == field {
						return true
					}
					for _, arg := range n.Args {
						visit(about, arg)
					}
					return false
				case *ast.BinaryExpr:
					if n.Op == token.ADD && len(fixedParts(n)) > 0 {
						add(field, n)
						return false
					}
				case *ast.BasicLit:
					add(field, n)
				}
				return true
			})
		}
		visit("", file)
	}
	for f := range endpointFields() {
		if f.Tag.Get("enum") != "" && f.Type.Kind() == reflect.String {
			rules = append(rules, rule{field: jsonKey(f), parts: []string{"unknown value"}})
		}
	}
	return rules
}

// fixedParts are the parts of a text that are the same every time.
func fixedParts(e ast.Expr) []string {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return append(fixedParts(e.X), fixedParts(e.Y)...)
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		if err != nil || e.Kind != token.STRING {
			return nil
		}
		return slices.DeleteFunc(verb.Split(text, -1), func(part string) bool { return part == "" })
	}
	return nil
}

var verb = regexp.MustCompile(`%[sdvwq]`)

func isProse(s string) bool {
	return strings.ContainsFunc(s, unicode.IsSpace) && strings.ContainsFunc(s, unicode.IsLetter) && !strings.Contains(s, "\x00")
}

// fieldAmong is the field that the arguments of a call name.
func fieldAmong(args []ast.Expr) string {
	for _, arg := range args {
		if lit, ok := arg.(*ast.BasicLit); ok {
			if name, err := strconv.Unquote(lit.Value); err == nil && slices.Contains(fieldNames, name) {
				return name
			}
		}
	}
	return ""
}

// endpointFields are the fields of endpoints.Endpoint.
func endpointFields() iter.Seq[reflect.StructField] {
	return reflect.TypeFor[endpoints.Endpoint]().Fields()
}

func jsonKey(f reflect.StructField) string {
	key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return key
}

var fieldNames = func() (all []string) {
	for f := range endpointFields() {
		all = append(all, jsonKey(f))
	}
	return all
}()
