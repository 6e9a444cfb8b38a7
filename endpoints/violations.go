package endpoints

import (
	"slices"
	"strings"

	"go.uber.org/zap/zapcore"
)

// Violation is one thing that is wrong with one field.
type Violation struct {
	// Endpoint says which one of a set, such as `endpoints[2]` or
	// `endpoints[2] (telemetry)`. It is empty for a single endpoint and for
	// what concerns the whole set.
	Endpoint string `json:"endpoint,omitempty"`
	// Field is the JSON key, in its canonical spelling if it has one. It is
	// empty if the document as a whole is at fault.
	Field string `json:"field,omitempty"`
	// Message says what is wrong and what is allowed. It never holds a secret.
	Message string `json:"message"`
	// Conflict means that the endpoint is right by itself, and can't be beside
	// another of the set.
	Conflict bool `json:"-"`
}

// String is one line: where, which field, what.
func (v Violation) String() string {
	var b strings.Builder
	for _, s := range []string{v.Endpoint, v.Field} {
		if s != "" {
			b.WriteString(s)
			b.WriteString(": ")
		}
	}
	b.WriteString(v.Message)
	return b.String()
}

// ValidationErrors is everything that is wrong, at once. It is never empty
// when it is returned as an error.
type ValidationErrors []Violation

// Error has one violation to a line.
func (v ValidationErrors) Error() string {
	lines := make([]string, len(v))
	for i, one := range v {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// Conflict reports whether nothing is wrong but conflicts.
func (v ValidationErrors) Conflict() bool {
	return !slices.ContainsFunc(v, func(one Violation) bool { return !one.Conflict })
}

// NotAnEndpoint reports whether the document as a whole is at fault: it isn't
// one that another version, or another key, could read.
func (v ValidationErrors) NotAnEndpoint() bool {
	return slices.ContainsFunc(v, func(one Violation) bool { return one.Field == "" })
}

// MarshalLogArray logs each violation by itself.
func (v ValidationErrors) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	for _, one := range v {
		enc.AppendString(one.String())
	}
	return nil
}

// err is v as an error: nil when there is none.
func (v ValidationErrors) err() error {
	if len(v) == 0 {
		return nil
	}
	return v
}

func (v *ValidationErrors) add(field, message string) {
	*v = append(*v, Violation{Field: field, Message: message})
}

// and adds what validation found to v, what decoding found: of a field that
// couldn't be read nothing more can be said, least of all that it's missing,
// and nothing at all of what isn't an endpoint.
func (v ValidationErrors) and(found ValidationErrors) ValidationErrors {
	known := map[string]bool{}
	for _, one := range v {
		known[one.Field] = true
	}
	if known[""] {
		return v
	}
	for _, one := range found {
		if !known[one.Field] {
			v = append(v, one)
		}
	}
	return v
}
