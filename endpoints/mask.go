package endpoints

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const mask = "***"

func isSpaceOrHidden(r rune) bool { return unicode.IsSpace(r) || isHidden(r) }

// String returns the connection string with its key or signature masked.
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

// Format writes String for every verb: without it %#v and %d print the fields.
func (cs ConnectionString) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, cs.String()) }

// MarshalText returns String: encoding/json, zap and slog call it.
func (cs ConnectionString) MarshalText() ([]byte, error) { return []byte(cs.String()), nil }

// masked returns the connection string s without its secret. A string that
// doesn't parse (a bare key, a broken string) is masked whole, since any part of
// it may be the key.
func masked(s string) string {
	cs, err := ParseConnectionString(s)
	if err != nil {
		cs, err = ParseNamespace(s)
	}
	if err != nil {
		return mask
	}
	return cs.String()
}

// Secrets returns all of the endpoint that a peer could repeat and nobody may
// read: keys and signatures and, where a connection string is none, the whole of it.
func (e Endpoint) Secrets() (secrets []string) {
	if e.Authentication == AuthenticationIdentity {
		return nil // its connection string is an address
	}
	e.secrets(func(_ string, s *string) {
		cs, err := ParseConnectionString(*s)
		if err != nil { // Event Grid's bare key
			secrets = append(secrets, *s)
			return
		}
		secrets = append(secrets, cs.SharedAccessKey, cs.SharedAccessSignature)
		if _, signature, ok := strings.Cut(cs.SharedAccessSignature, "sig="); ok {
			signature, _, _ = strings.Cut(signature, "&")
			secrets = append(secrets, signature)
			if plain, err := url.QueryUnescape(signature); err == nil {
				secrets = append(secrets, plain)
			}
		}
	})
	return slices.DeleteFunc(secrets, func(s string) bool { return s == "" })
}

// unmask replaces the masks in e by the stored keys. It adds a violation where
// the key would be sent to another host than before: otherwise a caller who may
// write but not read keys could have one sent to a host of his own.
func (e *Endpoint) unmask(stored Endpoint, v *ValidationErrors) {
	sameHost := e.Type.AMQP() == stored.Type.AMQP() && (e.Type.AMQP() || strings.EqualFold(e.Path, stored.Path))
	e.secrets(func(field string, s *string) {
		if !strings.Contains(*s, mask) {
			return
		}
		whole, ok := unmasked(*s, fieldNamed(field).of(&stored).String())
		if !ok || !sameHost {
			v.add(field, "is masked, and can stand for the stored key only where that goes to the same host with the same "+
				"name: give the key itself in place of "+mask)
			return
		}
		*s = whole
	})
}

// unmasked returns s with the stored key in place of its mask, and reports
// whether it names the same host and policy as the stored string.
func unmasked(s, stored string) (string, bool) {
	if stored != "" && (s == mask || s == masked(stored)) {
		return stored, true // with its parts in the order in which they were written
	}
	was, err := ParseConnectionString(stored)
	if err != nil {
		return "", false
	}
	parts := strings.Split(s, ";")
	for i, part := range parts {
		name, value, _ := strings.Cut(part, "=")
		switch {
		case value != mask:
		case strings.EqualFold(name, "SharedAccessKey"):
			parts[i] = name + "=" + was.SharedAccessKey
		case strings.EqualFold(name, "SharedAccessSignature"):
			parts[i] = name + "=" + was.SharedAccessSignature
		}
	}
	s = strings.Join(parts, ";")
	is, err := ParseConnectionString(s)
	ok := err == nil && is.Host == was.Host && is.SharedAccessKeyName == was.SharedAccessKeyName &&
		is.UseDevelopmentEmulator == was.UseDevelopmentEmulator
	return s, ok
}

// Format writes String for every verb: without it %#v and %d print the fields.
func (e Endpoint) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, e.String()) }

// LogValue returns String, so that slog doesn't reflect over the fields.
func (e Endpoint) LogValue() slog.Value { return slog.StringValue(e.String()) }

// LogName names an endpoint in a line of a log: its id as endpoint, and name, type,
// host and path. It is evaluated when the line is written.
func (e Endpoint) LogName() zap.Field { return zap.Inline(logName{&e}) }

type logName struct{ of *Endpoint }

// MarshalLogObject adds the fields.
func (n logName) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("endpoint", n.of.ID)
	if n.of.Name != "" {
		enc.AddString("name", n.of.Name)
	}
	enc.AddString("type", string(n.of.Type))
	enc.AddString("host", n.of.Host())
	enc.AddString("path", n.of.Path)
	return nil
}

// MarshalLogObject adds what identifies an endpoint in a log, and what it takes,
// without secrets; zap.Inline puts it among a line's fields. It lists few fields on
// purpose: log lines are documented.
func (e Endpoint) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	_ = logName{&e}.MarshalLogObject(enc) // it never fails
	enc.AddString("eventTypes", strings.Join(e.EventTypes, ","))
	if e.Authentication == AuthenticationIdentity {
		enc.AddString("authentication", string(e.Authentication))
	}
	if e.Filter != "" {
		enc.AddString("filter", e.Filter)
	}
	return nil
}
