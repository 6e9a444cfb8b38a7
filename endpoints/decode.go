package endpoints

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Decode reads one POST body: canonical, with defaults, valid, and
// without an id or a time, since both are read-only in a body and ignored. What is wrong
// comes back all at once, as ValidationErrors.
func Decode(body []byte, o Options) (Endpoint, error) {
	return decode(body, func(*Endpoint, *ValidationErrors) {}, o)
}

// DecodeUpdate reads the body of a PUT, as Decode does, for the endpoint that
// is stored now. It keeps that one's id; and a masked key in the body, such as
// a GET shows, stands for the stored one.
func DecodeUpdate(body []byte, stored Endpoint, o Options) (Endpoint, error) {
	return decode(body, func(e *Endpoint, v *ValidationErrors) {
		e.ID = stored.ID
		e.unmask(stored, v)
	}, o)
}

func decode(body []byte, complete func(*Endpoint, *ValidationErrors), o Options) (Endpoint, error) {
	if err := checkSyntax(body); err != nil {
		return Endpoint{}, err
	}
	e, known := decodeObject(body, false)
	e = e.canonical()
	complete(&e, &known)
	if err := known.and(e.violations(o)).err(); err != nil {
		return Endpoint{}, err
	}
	return e, nil
}

// DecodeSet reads an array of POST bodies, as the endpoints file holds it, in
// which an id and a lastUpdatedUtc count; and makes it fit for use, as Prepare does.
func DecodeSet(data []byte, o Options) ([]Endpoint, error) {
	set, _, err := decodeSet(data, nil, o)
	return set, err
}

// decodeSet is DecodeSet where secrets may be encrypted.
func decodeSet(data []byte, k *Keyring, o Options) ([]Endpoint, sealedSecrets, error) {
	// Some editors put a byte order mark before the text.
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if err := checkSyntax(data); err != nil {
		return nil, nil, err
	}
	var raw []json.RawMessage
	if data = bytes.TrimSpace(data); data[0] != '[' || json.Unmarshal(data, &raw) != nil {
		return nil, nil, ValidationErrors{{Message: "must be an array of endpoints: [{…}, {…}]"}}
	}
	eps, known := make([]Endpoint, len(raw)), make([]ValidationErrors, len(raw))
	for i, r := range raw {
		eps[i], known[i] = decodeObject(r, true)
	}
	sealed := k.openAll(eps, known)
	set, err := prepare(eps, known, o)
	return set, sealed, err
}

// checkSyntax says where a document stops being JSON. The JSON package's own
// message quotes one character at most.
func checkSyntax(data []byte) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return ValidationErrors{{Message: "is empty, and is to be JSON"}}
	}
	var v json.RawMessage
	err := json.Unmarshal(data, &v)
	if err == nil {
		return nil
	}
	msg := "is not valid JSON: " + err.Error()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		before := data[:min(max(syntax.Offset-1, 0), int64(len(data)))]
		line := bytes.Count(before, []byte("\n")) + 1
		column := len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
		msg = fmt.Sprintf("is not valid JSON: line %d, column %d: %s", line, column, err)
	}
	return ValidationErrors{{Message: msg}}
}

// fields are the keys of an endpoint's JSON and what each does.
var fields = []struct {
	name string
	set  func(*Endpoint, json.RawMessage) error
}{
	{"id", text(func(e *Endpoint) *string { return &e.ID })},
	{"name", text(func(e *Endpoint) *string { return &e.Name })},
	{"type", text(func(e *Endpoint) *Type { return &e.Type })},
	{"eventTypes", setEventTypes},
	{"connectionString", text(func(e *Endpoint) *string { return &e.ConnectionString })},
	{"secondaryConnectionString", text(func(e *Endpoint) *string { return &e.SecondaryConnectionString })},
	{"path", text(func(e *Endpoint) *string { return &e.Path })},
	{"body", text(func(e *Endpoint) *Body { return &e.Body })},
	{"ordering", text(func(e *Endpoint) *Ordering { return &e.Ordering })},
	{"overflow", text(func(e *Endpoint) *Overflow { return &e.Overflow })},
	{"authentication", text(func(e *Endpoint) *Authentication { return &e.Authentication })},
	{"filter", text(func(e *Endpoint) *string { return &e.Filter })},
	// What the service reports. A body that was read may be sent back as it is.
	{"lastUpdatedUtc", setLastUpdated},
	{"status", ignore},
	{"properties", ignore},
}

func ignore(*Endpoint, json.RawMessage) error { return nil }

func text[S ~string](at func(*Endpoint) *S) func(*Endpoint, json.RawMessage) error {
	return func(e *Endpoint, raw json.RawMessage) error {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return errNotString
		}
		*at(e) = S(s)
		return nil
	}
}

func setEventTypes(e *Endpoint, raw json.RawMessage) error {
	var types []*string // a null among them would otherwise pass as ""
	if json.Unmarshal(raw, &types) != nil {
		return errors.New("must be an array of strings")
	}
	for _, t := range types {
		if t == nil {
			return errors.New("must be an array of strings, without null")
		}
		e.EventTypes = append(e.EventTypes, *t)
	}
	return nil
}

// setLastUpdated is for the endpoints file, in which the time outlives a
// restart. What isn't a time is ignored: the field is nobody's to write.
func setLastUpdated(e *Endpoint, raw json.RawMessage) error {
	var t time.Time
	if json.Unmarshal(raw, &t) == nil {
		e.LastUpdated = t.UTC()
	}
	return nil
}

// readOnly fields count in a store's own documents only.
func readOnly(name string) bool { return name == "id" || name == "lastUpdatedUtc" }

// decodeObject reads one valid JSON value. It goes key by key, and not through
// a struct, to report all that is wrong instead of the first thing, and to
// refuse a key that comes twice, of which a struct would take the last.
func decodeObject(raw []byte, stored bool) (Endpoint, ValidationErrors) {
	var (
		e    Endpoint
		v    ValidationErrors
		seen = map[string]bool{}
		dec  = json.NewDecoder(bytes.NewReader(raw))
	)
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		v.add("", "an endpoint must be a JSON object")
		return e, v
	}
	for dec.More() {
		t, err := dec.Token()
		key, ok := t.(string)
		var value json.RawMessage
		if err != nil || !ok || dec.Decode(&value) != nil {
			v.add("", "an endpoint must be a JSON object") // checkSyntax came before: can't be
			return e, v
		}
		known := false
		for _, f := range fields {
			if !strings.EqualFold(f.name, key) {
				continue
			}
			known = true
			switch {
			case seen[f.name]:
				v.add(f.name, "is given more than once")
			case readOnly(f.name) && !stored, string(value) == "null":
			default:
				if err := f.set(&e, value); err != nil {
					v.add(f.name, err.Error())
				}
			}
			seen[f.name] = true
			break
		}
		if !known {
			v.add(quotableKey(key), "unknown field")
		}
	}
	return e, v
}

// quotableKey returns key unless it can't be a field's name: a connection
// string on the wrong side of a colon is not repeated.
func quotableKey(key string) string {
	if key == "" || len(key) > 64 || strings.ContainsAny(key, "=;") || strings.ContainsFunc(key, isControl) {
		return "…"
	}
	return key
}
