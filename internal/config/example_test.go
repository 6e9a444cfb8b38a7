package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

// flatten returns the values of a YAML file by their full keys.
func flatten(t *testing.T, text []byte) map[string]any {
	t.Helper()
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(text), yaml.Parser()); err != nil {
		t.Fatal(err)
	}
	return k.All()
}

// The example loads and changes nothing, and has every key, no other, each with
// its default.
func TestExample(t *testing.T) {
	path := filepath.Join(t.TempDir(), "twinegress.yaml")
	if err := os.WriteFile(path, Example(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(Sources{File: path, Environ: []string{}})
	if err != nil || !reflect.DeepEqual(got, Default()) {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, got, Default())
	}

	all := regexp.MustCompile(`(?m)^  # (listen: )`).ReplaceAll(Example(), []byte("  $1"))
	flat := flatten(t, all)
	var cfg Config // zero, not the defaults, so that a missing key is found
	for _, key := range keys {
		raw, ok := flat[key.path]
		delete(flat, key.path)
		if !ok {
			t.Errorf("%s is missing", key.path)
		} else if err := set(&cfg, key, raw); err != nil {
			t.Errorf("%s: %v", key.path, err)
		}
	}
	if len(flat) > 0 {
		t.Errorf("these are no keys: %v", flat)
	}
	if !reflect.DeepEqual(cfg, Default()) {
		t.Errorf("got  %+v\nwant %+v", cfg, Default())
	}
	if commented := regexp.MustCompile(`(?m)^[^#\n]*: *\S[^#\n]*$`).FindAllString(string(Example()), -1); len(commented) > 8 {
		t.Errorf("too many keys without a comment: %q", commented)
	}
}
