// Package schematest checks JSON reports against their schemas, in tests.
package schematest

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// Check fails the test unless the report fits the schema in the file.
func Check(t *testing.T, file string, report []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var root schema
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // an unknown rule would go unchecked
	if err := d.Decode(&root); err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(report, &v); err != nil {
		t.Fatal(err)
	}
	root.check(t, &root, "report", v)
}

// schema is the part of JSON Schema that the reports use.
type schema struct {
	Schema      string             `json:"$schema"`
	Ref         string             `json:"$ref"`
	Defs        map[string]*schema `json:"$defs"`
	Title       string             `json:"title"`
	Description string             `json:"description"`
	Type        any                `json:"type"`
	Properties  map[string]*schema `json:"properties"`
	Required    []string           `json:"required"`
	Additional  *bool              `json:"additionalProperties"`
	Items       *schema            `json:"items"`
	Enum        []any              `json:"enum"`
	Minimum     *float64           `json:"minimum"`
}

func (s *schema) check(t *testing.T, root *schema, at string, v any) {
	t.Helper()
	if s.Ref != "" {
		s = root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")]
	}
	is := "null"
	switch v := v.(type) {
	case bool:
		is = "boolean"
	case string:
		is = "string"
	case float64:
		is = "number"
		if v == float64(int64(v)) && !slices.Contains(s.types(), any("number")) {
			is = "integer"
		}
		if s.Minimum != nil && v < *s.Minimum {
			t.Errorf("%s: %v is under %v", at, v, *s.Minimum)
		}
	case []any:
		is = "array"
		for _, e := range v {
			s.Items.check(t, root, at+"[]", e)
		}
	case map[string]any:
		is = "object"
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				t.Errorf("%s: %s is missing", at, name)
			}
		}
		for name, e := range v {
			if p := s.Properties[name]; p != nil {
				p.check(t, root, at+"."+name, e)
			} else if s.Additional != nil && !*s.Additional {
				t.Errorf("%s: %s is not in the schema", at, name)
			}
		}
	}
	if !slices.Contains(s.types(), any(is)) {
		t.Errorf("%s: %v is %s, not %v", at, v, is, s.Type)
	}
	if s.Enum != nil && !slices.Contains(s.Enum, v) {
		t.Errorf("%s: %v is none of %v", at, v, s.Enum)
	}
}

// types returns the allowed types, of a name or a list.
func (s *schema) types() []any {
	if list, ok := s.Type.([]any); ok {
		return list
	}
	return []any{s.Type}
}
