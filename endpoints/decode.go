package endpoints

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"twinegress/internal/similar"
)

// maxEventTypes bounds the event types in a document, of which there are five. It
// has room for repeats, which are reported one by one.
const maxEventTypes = 64

// Decode decodes the body of a POST, or of a PUT that replaces stored, and returns
// an endpoint that is canonical and valid, or everything that is wrong as
// ValidationErrors. Read-only fields in the body are ignored; the id and the seek are
// those of stored, and a masked key, as a GET returns it, means the key of stored.
func Decode(body []byte, stored Endpoint, o Options) (Endpoint, error) {
	if err := checkSyntax(body); err != nil {
		return Endpoint{}, err
	}
	e, known := decodeObject(body, false)
	e.SeekTo, e.SeekAt = stored.SeekTo, stored.SeekAt
	e.StartAt = cmp.Or(e.StartAt, stored.StartAt)
	e = e.canonical()
	e.ID = stored.ID
	e.unmask(stored, &known)
	e.checkStart(stored, &known)
	if err := known.merge(e.violations(o)).err(); err != nil {
		return Endpoint{}, err
	}
	return e, nil
}

// DecodeSet decodes an array of POST bodies, as the endpoints file holds it, and
// prepares it as Prepare does. Unlike in a body, id and lastUpdatedUtc count, and
// open decrypts secrets.
func DecodeSet(data []byte, open SecretFunc, o Options) ([]Endpoint, error) {
	// Some editors put a byte order mark before the text.
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if err := checkSyntax(data); err != nil {
		return nil, err
	}
	var raw []json.RawMessage
	if data = bytes.TrimSpace(data); data[0] != '[' || json.Unmarshal(data, &raw) != nil {
		return nil, ValidationErrors{{Message: "must be an array of endpoints: [{…}, {…}]"}}
	}
	if len(raw) > MaxEndpoints {
		return nil, tooMany(len(raw))
	}
	eps, known := make([]Endpoint, len(raw)), make([]ValidationErrors, len(raw))
	for i, r := range raw {
		eps[i], known[i] = decodeStored(r, open)
	}
	return prepare(eps, known, o)
}

// DecodeStored decodes what Encode returned. An error is ValidationErrors: see
// NotAnEndpoint there.
func DecodeStored(data []byte, open SecretFunc, o Options) (Endpoint, error) {
	if err := checkSyntax(data); err != nil {
		return Endpoint{}, err
	}
	e, known := decodeStored(data, open)
	e = e.canonical()
	if err := known.merge(e.violations(o)).err(); err != nil {
		return Endpoint{}, err
	}
	e.orderStart(seekOfFile)
	return e, nil
}

func decodeStored(raw []byte, open SecretFunc) (Endpoint, ValidationErrors) {
	e, v := decodeObject(raw, true)
	if open != nil {
		boundTo := e.boundTo()
		e.secrets(func(field string, s *string) {
			secret, err := open(*s, boundTo)
			if err != nil {
				v.add(field, err.Error())
				return
			}
			*s = secret
		})
	}
	return e, v
}

// checkSyntax returns an error with line and column unless data is JSON in UTF-8.
// The JSON package's own message quotes one character at most; what isn't UTF-8 it
// replaces without a word, and what was two names may then be one.
func checkSyntax(data []byte) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return ValidationErrors{{Message: "is empty, and is to be JSON"}}
	}
	if !utf8.Valid(data) {
		at := 0
		for r, n := utf8.DecodeRune(data); r != utf8.RuneError || n > 1; r, n = utf8.DecodeRune(data[at:]) {
			at += n
		}
		return ValidationErrors{{Message: "is not valid UTF-8: " + position(data, at)}}
	}
	if json.Valid(data) { // unlike decoding, without a copy
		return nil
	}
	var v json.RawMessage
	err := json.Unmarshal(data, &v)
	msg := "is not valid JSON: " + err.Error()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		msg = fmt.Sprintf("is not valid JSON: %s: %s", position(data, int(syntax.Offset)-1), err)
	}
	return ValidationErrors{{Message: msg}}
}

// position returns the line and the column of a byte of a text.
func position(text []byte, at int) string {
	before := text[:min(max(at, 0), len(text))]
	line := bytes.Count(before, []byte("\n")) + 1
	column := len(before) - (bytes.LastIndexByte(before, '\n') + 1) + 1
	return fmt.Sprintf("line %d, column %d", line, column)
}

// lookupKey returns a key of an endpoint's JSON in its canonical spelling, and its
// field. The API's status and properties have no field: they are ignored, so that
// a client may send back the body that it got.
func lookupKey(key string) (name string, f *field) {
	if f := fieldNamed(key); f != nil {
		return f.name, f
	}
	for _, reported := range []string{"status", "properties"} {
		if strings.EqualFold(key, reported) {
			return reported, nil
		}
	}
	return "", nil
}

// decode sets the field of e to a value that isn't null.
func (f *field) decode(e *Endpoint, raw json.RawMessage) error {
	switch f.kind {
	case reflect.String:
		var s string
		if json.Unmarshal(raw, &s) != nil {
			return errors.New("must be a string")
		}
		// The JSON package puts it in place of half a surrogate pair.
		if strings.ContainsRune(s, utf8.RuneError) {
			return errors.New("has a character in it that can't be read, U+FFFD")
		}
		f.of(e).SetString(s)
	case reflect.Pointer:
		var b bool
		if json.Unmarshal(raw, &b) != nil {
			return errors.New("must be true or false")
		}
		f.of(e).Set(reflect.ValueOf(&b))
	case reflect.Slice:
		var types []*string // a null among them would otherwise pass as ""
		if json.Unmarshal(raw, &types) != nil {
			return errors.New("must be an array of strings")
		}
		if len(types) > maxEventTypes {
			return fmt.Errorf("has %d entries, and may have %d", len(types), maxEventTypes)
		}
		for _, t := range types {
			if t == nil {
				return errors.New("must be an array of strings, without null")
			}
			e.EventTypes = append(e.EventTypes, *t)
		}
	default:
		// The endpoints file keeps the time over a restart. A value that isn't a
		// time is ignored: users don't write this field.
		var t time.Time
		if json.Unmarshal(raw, &t) == nil {
			e.LastUpdated = t.UTC()
		}
	}
	return nil
}

// decodeObject decodes one valid JSON value. It goes key by key, since decoding
// into a struct reports only the first mistake, and takes the last of two equal
// keys.
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
			v.add("", "an endpoint must be a JSON object") // impossible after checkSyntax
			return e, v
		}
		name, f := lookupKey(key)
		switch {
		case name == "":
			v.add(quotableKey(key), unknownField(key))
		case seen[name]:
			v.add(name, "is given more than once")
		case f == nil, f.readOnly && !stored, string(value) == "null":
		default:
			if err := f.decode(&e, value); err != nil {
				v.add(name, err.Error())
			}
		}
		seen[name] = true
	}
	return e, v
}

// unknownField describes a key that is no field's, with the one that it may have
// been meant to be.
func unknownField(key string) string {
	var settable []string
	for _, f := range fields {
		if !f.readOnly {
			settable = append(settable, f.name)
		}
	}
	if meant := similar.Closest(key, settable); meant != "" {
		return "unknown field; did you mean " + meant + "?"
	}
	return "unknown field"
}

// quotableKey returns key for a message, or a stand-in if it can't be the name of
// a field: it may be a connection string on the wrong side of a colon.
func quotableKey(key string) string {
	if key == "" || len(key) > 64 || strings.ContainsAny(key, "=;") || strings.ContainsFunc(key, isHidden) {
		return "…"
	}
	return key
}
