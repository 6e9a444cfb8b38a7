package endpoints

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode"

	"go.uber.org/zap/zapcore"
)

const mask = "***"

func isSpaceOrControl(r rune) bool { return unicode.IsSpace(r) || isControl(r) }

// String renders the connection string with its key or signature masked.
func (cs ConnectionString) String() string {
	parts := []string{"Endpoint=" + cs.Endpoint}
	if cs.SharedAccessKeyName != "" {
		parts = append(parts, "SharedAccessKeyName="+cs.SharedAccessKeyName)
	}
	if cs.SharedAccessKey != "" {
		parts = append(parts, "SharedAccessKey="+mask)
	}
	if cs.SharedAccessSignature != "" {
		parts = append(parts, "SharedAccessSignature="+mask)
	}
	if cs.EntityPath != "" {
		parts = append(parts, "EntityPath="+cs.EntityPath)
	}
	if cs.UseDevelopmentEmulator {
		parts = append(parts, "UseDevelopmentEmulator=true")
	}
	return strings.Join(parts, ";")
}

// GoString is String: %#v must not show the key either.
func (cs ConnectionString) GoString() string { return cs.String() }

// Format is String for every verb: without it %d and the like print the fields.
func (cs ConnectionString) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, cs.String()) }

// MarshalText is String, which covers encoding/json, zap and slog.
func (cs ConnectionString) MarshalText() ([]byte, error) { return []byte(cs.String()), nil }

// Masked renders the connection string s without its secret, for logs and API
// replies. What doesn't parse (a bare key, a broken string) is masked whole,
// since any part of it may be the key.
func Masked(s string) string {
	if s == "" {
		return ""
	}
	cs, err := ParseConnectionString(s)
	if err != nil {
		return mask
	}
	return cs.String()
}

// Redacted returns e with the secrets of both connection strings masked. It is
// for showing only: it isn't a valid endpoint any more.
func (e Endpoint) Redacted() Endpoint {
	e = e.Clone()
	if e.Type == TypeEventGrid {
		// A bare key, even if it should look like a connection string.
		for _, s := range []*string{&e.ConnectionString, &e.SecondaryConnectionString} {
			if *s != "" {
				*s = mask
			}
		}
		return e
	}
	e.ConnectionString = Masked(e.ConnectionString)
	e.SecondaryConnectionString = Masked(e.SecondaryConnectionString)
	return e
}

// String is one line for people, without secrets.
func (e Endpoint) String() string {
	name := e.ID
	if e.Name != "" {
		name = e.Name + " (" + e.ID + ")"
	}
	return fmt.Sprintf("%s %s %s/%s %s", e.Type, name, e.Host(), e.Path, strings.Join(e.EventTypes, ","))
}

// GoString is String: %#v must not show the keys either.
func (e Endpoint) GoString() string { return e.String() }

// Format is String for every verb: without it %d and the like print the fields.
func (e Endpoint) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, e.String()) }

// LogValue keeps slog from reflecting over the fields.
func (e Endpoint) LogValue() slog.Value { return slog.StringValue(e.String()) }

// MarshalLogObject logs an endpoint, secrets masked, with zap.Object.
func (e Endpoint) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("id", e.ID)
	if e.Name != "" {
		enc.AddString("name", e.Name)
	}
	enc.AddString("type", string(e.Type))
	enc.AddString("host", e.Host())
	enc.AddString("path", e.Path)
	enc.AddString("eventTypes", strings.Join(e.EventTypes, ","))
	return nil
}

// MarshalJSON writes the fields as the Management API names them, with the
// secrets masked: a key leaves this process in no other way than to its service.
func (e Endpoint) MarshalJSON() ([]byte, error) {
	r := e.Redacted()
	out := struct {
		ID                        string     `json:"id,omitempty"`
		Name                      string     `json:"name,omitempty"`
		Type                      Type       `json:"type"`
		EventTypes                []string   `json:"eventTypes"`
		ConnectionString          string     `json:"connectionString"`
		SecondaryConnectionString string     `json:"secondaryConnectionString,omitempty"`
		Path                      string     `json:"path"`
		Body                      Body       `json:"body,omitempty"`
		Ordering                  Ordering   `json:"ordering,omitempty"`
		Overflow                  Overflow   `json:"overflow,omitempty"`
		LastUpdatedUtc            *time.Time `json:"lastUpdatedUtc,omitempty"`
	}{
		r.ID, r.Name, r.Type, r.EventTypes, r.ConnectionString, r.SecondaryConnectionString,
		r.Path, r.Body, r.Ordering, r.Overflow, nil,
	}
	if !r.LastUpdated.IsZero() {
		t := r.LastUpdated.UTC()
		out.LastUpdatedUtc = &t
	}
	return json.Marshal(out)
}
