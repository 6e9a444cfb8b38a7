package config

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"twinegress/internal/similar"
)

// key is a configuration key: a leaf of Config.
type key struct {
	path  string // ingest.tls.caFile
	field []int  // its index in Config, for reflect
}

// envPrefix is the prefix of all our environment variables.
const envPrefix = "TWINEGRESS_"

// env returns the name of the key's environment variable. It has underscores
// only where the key has dots, so that a name is never ambiguous.
func envName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// keys are all leaves of Config, in its order; sections are all nodes above them.
var keys, sections = schema()

func schema() (leaves []key, nodes []string) {
	var walk func(t reflect.Type, path string, field []int)
	walk = func(t reflect.Type, path string, field []int) {
		if t.Kind() != reflect.Struct {
			leaves = append(leaves, key{path: path, field: field})
			return
		}
		if path != "" {
			nodes = append(nodes, path)
			path += "."
		}
		for i := range t.NumField() {
			f := t.Field(i)
			walk(f.Type, path+f.Tag.Get("koanf"), append(slices.Clone(field), i))
		}
	}
	walk(reflect.TypeFor[Config](), "", nil)
	return leaves, nodes
}

func findKey(path string) (key, bool) {
	i := slices.IndexFunc(keys, func(k key) bool { return k.path == path })
	if i < 0 {
		return key{}, false
	}
	return keys[i], true
}

// secret reports whether the key's value is one.
func (k key) secret() bool {
	return reflect.TypeFor[Config]().FieldByIndex(k.field).Type == reflect.TypeFor[Secret]()
}

// unknownKey returns the error for a path that is no key, with the known keys.
func unknownKey(path string) string {
	for _, k := range keys {
		if strings.HasPrefix(path, k.path+".") {
			return "is a value, not a section: " + want(k)
		}
	}
	plain := func(s string) string {
		return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s))
	}
	for _, k := range keys {
		if plain(k.path) == plain(path) {
			return "unknown key; did you mean " + k.path + "?"
		}
	}
	// The closest section that exists, and its keys.
	section := path
	for section != "" && !slices.Contains(sections, section) {
		section = section[:max(0, strings.LastIndexByte(section, '.'))]
	}
	in := ""
	if section != "" {
		in = section + "."
	}
	var known, below []string
	for _, k := range keys {
		if rest, ok := strings.CutPrefix(k.path, in); ok {
			first, _, _ := strings.Cut(rest, ".")
			if name := in + first; !slices.Contains(known, name) {
				known, below = append(known, name), append(below, first)
			}
		}
	}
	first, _, _ := strings.Cut(path[len(in):], ".")
	if meant := similar.Closest(first, below); meant != "" {
		return "unknown key; did you mean " + in + meant + "?"
	}
	return "unknown key; known are " + strings.Join(known, ", ")
}

// want describes the values that a key accepts.
func want(k key) string {
	switch reflect.TypeFor[Config]().FieldByIndex(k.field).Type {
	case reflect.TypeFor[bool]():
		return "must be true or false"
	case reflect.TypeFor[int]():
		return "must be a whole number"
	case reflect.TypeFor[time.Duration]():
		return "must be a duration with a unit, such as 500ms, 10s or 1m30s"
	case reflect.TypeFor[ByteSize]():
		return "must be a number of bytes, or one with a unit, such as 64MiB or 1MB"
	case reflect.TypeFor[[]string]():
		return "must be a list of strings"
	case reflect.TypeFor[[]Token]():
		return "must be a list of {name, sha256, role}"
	}
	return "must be a string"
}
