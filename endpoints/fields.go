package endpoints

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// field describes one of Endpoint's fields, by its tags: see there. Its kind is
// String for a text, Slice for the event types, Pointer for a bool, or Struct for
// the time.
type field struct {
	name     string // its key in JSON
	index    int    // in the struct
	kind     reflect.Kind
	allowed  []string // the values of an enumeration; nil: any text
	absent   string   // the default
	readOnly bool
	secret   bool
	routing  bool
	sparse   bool
}

var (
	fields = describe(reflect.TypeFor[Endpoint]())
	texts  = slices.DeleteFunc(slices.Clone(fields), func(f field) bool { return f.kind != reflect.String })

	typeField       = fieldNamed("type")
	eventTypesField = fieldNamed("eventTypes")
)

// describe returns the fields of a struct, in their order. It panics if this file
// doesn't support one.
func describe(t reflect.Type) []field {
	all := make([]field, t.NumField())
	for i := range all {
		sf := t.Field(i)
		f := field{index: i, kind: sf.Type.Kind(), absent: sf.Tag.Get("default"), readOnly: sf.Tag.Get("readOnly") == "true"}
		f.name, _, _ = strings.Cut(sf.Tag.Get("json"), ",")
		if enum := sf.Tag.Get("enum"); enum != "" {
			f.allowed = strings.Split(enum, ",")
		}
		for use := range strings.SplitSeq(sf.Tag.Get("endpoint"), ",") {
			switch use {
			case "":
			case "secret":
				f.secret = true
			case "routing":
				f.routing = true
			case "sparse":
				f.sparse = true
			default:
				panic("BUG: " + sf.Name + " is tagged " + use)
			}
		}
		known := f.kind == reflect.String || sf.Type == reflect.TypeFor[*bool]() || sf.Name == "EventTypes" || sf.Name == "LastUpdated"
		if f.name == "" || !known {
			panic("BUG: " + sf.Name + " has no JSON key, or is of a type that nobody compares, decodes and hashes")
		}
		all[i] = f
	}
	return all
}

// fieldNamed returns the field with a key, without regard to case, or nil.
func fieldNamed(key string) *field {
	for i := range fields {
		if strings.EqualFold(fields[i].name, key) {
			return &fields[i]
		}
	}
	return nil
}

func (f *field) of(e *Endpoint) reflect.Value { return reflect.ValueOf(e).Elem().Field(f.index) }

// text returns the value of a text or a bool as a text. A bool that isn't set is the
// default.
func (f *field) text(e *Endpoint) string {
	v := f.of(e)
	switch {
	case f.kind == reflect.String:
		return v.String()
	case v.IsNil():
		return f.absent
	}
	return strconv.FormatBool(v.Elem().Bool())
}

// Changes are the differences between two versions of an endpoint.
type Changes struct {
	// Fields are the keys of the fields that differ, in their usual order.
	Fields []string
	// Reconnect reports whether the endpoint needs a new connection.
	Reconnect bool
}

// Diff compares two versions of an endpoint, but for LastUpdated.
func Diff(before, after Endpoint) Changes {
	c := Changes{Fields: []string{}}
	for i := range fields {
		f := &fields[i]
		same := true
		switch f.kind {
		case reflect.String, reflect.Pointer:
			same = f.text(&before) == f.text(&after)
		case reflect.Slice:
			same = slices.Equal(before.EventTypes, after.EventTypes)
		}
		if !same {
			c.Fields = append(c.Fields, f.name)
			c.Reconnect = c.Reconnect || !f.routing
		}
	}
	return c
}

// Equal reports whether two endpoints mean the same: everything but
// LastUpdated, and the order of their event types.
func (e Endpoint) Equal(o Endpoint) bool {
	if len(e.EventTypes) != len(o.EventTypes) {
		return false
	}
	for _, t := range e.EventTypes {
		if !slices.Contains(o.EventTypes, t) {
			return false
		}
	}
	return sameOthers(&e, &o)
}

// identical is Equal, and the order of the event types is the same too.
func identical(e, o *Endpoint) bool {
	return slices.Equal(e.EventTypes, o.EventTypes) && sameOthers(e, o)
}

// sameOthers compares all other fields by name, not by index: a change of a set
// compares thousands of endpoints. TestEveryField fails for one that is missing here.
func sameOthers(a, b *Endpoint) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Type == b.Type &&
		a.ConnectionString == b.ConnectionString && a.SecondaryConnectionString == b.SecondaryConnectionString &&
		a.Path == b.Path && a.Authentication == b.Authentication && a.Body == b.Body &&
		a.Ordering == b.Ordering && a.Overflow == b.Overflow && a.Filter == b.Filter &&
		a.Recovery == b.Recovery && a.Disabled() == b.Disabled() &&
		a.StartAt == b.StartAt && a.SeekTo == b.SeekTo && a.SeekAt == b.SeekAt
}

// ETag returns a strong entity tag, with its quotes: it changes with everything
// that a user can change, the secrets included, and is the same in every copy
// of the process. LastUpdated isn't part of it.
//
// It doesn't reveal a key: it is a truncated hash, and a key is too random to be
// guessed.
func (e Endpoint) ETag() string {
	e = e.canonical()
	h := sha256.New()
	add := func(s string) {
		// The length before each keeps the concatenation unambiguous.
		_, _ = fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	for i := range texts {
		if !texts[i].sparse {
			add(texts[i].text(&e))
		}
	}
	for _, t := range e.EventTypes {
		add(t)
	}
	for i := range fields {
		if f := &fields[i]; f.sparse && f.text(&e) != f.absent {
			add(f.name)
			add(f.text(&e))
		}
	}
	return `"` + hex.EncodeToString(h.Sum(nil)[:16]) + `"`
}

// canonical returns e with canonical spellings and defaults. A value that matches
// nothing stays as it is, and violations reports it.
func (e Endpoint) canonical() Endpoint {
	e = e.Clone()
	for i := range e.EventTypes {
		e.EventTypes[i] = fold(e.EventTypes[i], eventTypesField.allowed)
	}
	// Leading space of a filter stays: its errors name the column.
	filter := strings.TrimRightFunc(e.Filter, unicode.IsSpace)
	values := reflect.ValueOf(&e).Elem()
	for i := range texts {
		f := &texts[i]
		v := values.Field(f.index)
		s := v.String()
		switch {
		case f.allowed == nil:
			// White space around a value is never part of it: a pasted value, or a
			// secret file's final newline.
			s = cmp.Or(strings.TrimSpace(s), f.absent)
		case s == "":
			s = f.absent
		default:
			s = fold(s, f.allowed)
		}
		v.SetString(s)
	}
	if e.Type.AMQP() {
		e.ConnectionString, e.SecondaryConnectionString = tidy(e.ConnectionString), tidy(e.SecondaryConnectionString)
	}
	e.ID, e.Filter = strings.ToLower(e.ID), filter
	if e.Enabled == nil {
		e.Enabled = new(true)
	}
	e.StartAt = canonicalPosition(e.StartAt, startWords)
	e.SeekTo, e.SeekAt = canonicalPosition(e.SeekTo, seekWords), canonicalPosition(e.SeekAt, nil)
	return e
}

// withoutDefaults returns e with the zero value in place of each default, which JSON
// omits, and without the seek that follows from StartAt: see orderStart.
func (e Endpoint) withoutDefaults() Endpoint {
	if e.SeekAt == seekOfFile && e.SeekTo == e.StartAt {
		e.SeekTo, e.SeekAt = "", ""
	}
	for i := range fields {
		if f := &fields[i]; f.absent != "" && f.text(&e) == f.absent {
			f.of(&e).SetZero()
		}
	}
	return e
}

// secrets calls f with each secret of e that isn't empty; f may change it.
func (e *Endpoint) secrets(f func(field string, s *string)) {
	for i := range texts {
		if !texts[i].secret {
			continue
		}
		if s := texts[i].of(e).Addr().Interface().(*string); *s != "" {
			f(texts[i].name, s)
		}
	}
}

// fold returns the canonical spelling of s, or s if there is none.
func fold(s string, canonical []string) string {
	for _, c := range canonical {
		// The length excludes what only Unicode folds: EqualFold matches ſ and s.
		if t := strings.TrimSpace(s); len(t) == len(c) && strings.EqualFold(t, c) {
			return c
		}
	}
	return s
}
