package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// KeyError is one thing that is wrong with one key.
type KeyError struct {
	// Key is the key as the user has to write it, such as ingest.brokers[1];
	// or, of what is no key, the file or the environment variable.
	Key string
	// Message says what is wrong and what is allowed. It never holds a secret.
	Message string
	// Source is where the value came from; empty for a default.
	Source string
}

// Error is one line: key, message, source.
func (e KeyError) Error() string {
	s := e.Key + ": " + e.Message
	if e.Source != "" {
		s += " (" + e.Source + ")"
	}
	return s
}

// Errors is everything that is wrong, at once, sorted by key. It is never
// empty when it is returned as an error.
type Errors []KeyError

// Error has one error to a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find each.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i, one := range e {
		out[i] = one
	}
	return out
}

func (e *Errors) add(key, format string, args ...any) {
	*e = append(*e, KeyError{Key: key, Message: fmt.Sprintf(format, args...)})
}

// err is e as an error, sorted: nil when there is none.
func (e Errors) err() error {
	if len(e) == 0 {
		return nil
	}
	slices.SortFunc(e, func(a, b KeyError) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Message, b.Message))
	})
	return e
}
