package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// logTypes are the types of fields by the functions that make them: of zap, and of
// its encoders.
var logTypes = map[string]string{
	"String": "text", "ByteString": "text", "Stringer": "text", "NamedError": "text", "AddString": "text",
	"Strings": "list", "Array": "list", "AddArray": "list",
	"Int": "number", "Int32": "number", "Int64": "number", "Uint": "number", "Uint32": "number", "Uint64": "number", "Float64": "number",
	"AddInt": "number", "AddInt64": "number", "AddUint64": "number",
	"Bool": "bool", "AddBool": "bool",
	"Duration": "duration", "AddDuration": "duration", "Time": "time", "AddTime": "time",
	"Object": "object", "Dict": "object", "AddObject": "object", "Any": "any", "Reflect": "any",
}

// notLogged are the directories whose lines no user of the program sees.
var notLogged = []string{"bench", "deploy", "e2e", "tools", "internal/kafkatest", "sinks/sinktest", "endpoints/storetest", ".git"}

// fieldsOf returns the types of each field of the log in a file, by name.
func fieldsOf(t *testing.T, file string, add func(name, kind, at string)) {
	t.Helper()
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		on, ok := f.X.(*ast.Ident)
		at := set.Position(call.Pos()).String()
		switch {
		case !ok || on.Name != "zap" && on.Name != "enc":
			return true
		case on.Name == "zap" && f.Sel.Name == "Error":
			add("error", "text", at)
			return true
		}
		kind, is := logTypes[f.Sel.Name]
		if !is || len(call.Args) < 2 {
			return true
		}
		if name, is := call.Args[0].(*ast.BasicLit); is && name.Kind == token.STRING {
			unquoted, _ := strconv.Unquote(name.Value)
			add(unquoted, kind, at)
		}
		return true
	})
}

// A field of the log has one name and one type in every line, and is in the manual.
func TestLogFields(t *testing.T) {
	const manual = "../../docs/log.md"
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(string(text), -1) {
		if listed[m[1]] != "" {
			t.Errorf("%s: %s is there twice", manual, m[1])
		}
		listed[m[1]] = m[2]
	}
	used := map[string]bool{}
	check := func(name, kind, at string) {
		used[name] = true
		switch {
		case listed[name] == "":
			t.Errorf("%s: the field %s, of type %s, is not in %s", at, name, kind, manual)
		case listed[name] != kind:
			t.Errorf("%s: the field %s is of type %s, and of type %s elsewhere or in %s", at, name, kind, listed[name], manual)
		}
	}
	files := 0
	err = filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		rel := filepath.ToSlash(strings.TrimPrefix(path, "../../"))
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(notLogged, rel):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
			files++
			fieldsOf(t, path, check)
		}
		return nil
	})
	if err != nil || files < 100 {
		t.Fatalf("%d files: %v", files, err)
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if !used[name] {
			t.Errorf("%s: no line has the field %s", manual, name)
		}
	}
}
