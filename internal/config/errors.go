package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// KeyError is one error of one key.
type KeyError struct {
	// Key is the key as users write it, such as ingest.brokers[1], or else the
	// file or the environment variable.
	Key string
	// Message describes the error and what is allowed. It never has a secret.
	Message string
	// Source is the source of the value; empty for a default.
	Source string
}

// Error returns one line: key, message, source.
func (e KeyError) Error() string {
	s := e.Key + ": " + e.Message
	if e.Source != "" {
		s += " (" + e.Source + ")"
	}
	return s
}

// Errors is all errors, sorted by key. It is never empty when it is returned as
// an error.
type Errors []KeyError

// Error returns one error per line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

func (e *Errors) add(key, format string, args ...any) {
	*e = append(*e, KeyError{Key: key, Message: fmt.Sprintf(format, args...)})
}

// err returns e, sorted, as an error: nil if it is empty.
func (e Errors) err() error {
	if len(e) == 0 {
		return nil
	}
	slices.SortFunc(e, func(a, b KeyError) int {
		return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.Message, b.Message))
	})
	return e
}
