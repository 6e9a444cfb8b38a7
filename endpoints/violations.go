package endpoints

import (
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap/zapcore"
)

// Violation is one thing that is wrong with one field.
type Violation struct {
	// Endpoint names the endpoint within a set, such as `endpoints[2]` or
	// `endpoints[2] (telemetry)`. It is empty for a single endpoint and for a
	// violation of the whole set.
	Endpoint string `json:"endpoint,omitempty"`
	// Field is the JSON key, in its canonical spelling if it has one. It is
	// empty if the document as a whole is at fault.
	Field string `json:"field,omitempty"`
	// Message says what is wrong and what is allowed. It never holds a secret.
	Message string `json:"message"`
	// Conflict means that the endpoint is valid by itself, but not together with
	// another of the set.
	Conflict bool `json:"-"`

	more int // stands for so many others; only the last one of a list does
}

// maxViolations is how many violations are reported. People mend one after the
// other; a body of 1 MiB, or a file, has room for a hundred thousand, of which
// reports, their memory and the replies with them would be a multiple.
const maxViolations = 20

// String returns one line: the endpoint, the field, the message.
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

// ValidationErrors are all violations at once: the first twenty, and a last one
// that says how many there are besides. It is never empty when it is returned as
// an error.
type ValidationErrors []Violation

// Error returns one line for each violation.
func (v ValidationErrors) Error() string {
	lines := make([]string, len(v))
	for i, one := range v {
		lines[i] = one.String()
	}
	return strings.Join(lines, "\n")
}

// Conflict reports whether all violations are conflicts.
func (v ValidationErrors) Conflict() bool {
	return !slices.ContainsFunc(v, func(one Violation) bool { return !one.Conflict })
}

// NotAnEndpoint reports whether the document as a whole is at fault: another
// version or another key couldn't read it either.
func (v ValidationErrors) NotAnEndpoint() bool {
	return slices.ContainsFunc(v, Violation.ofDocument)
}

// MarshalLogArray adds one string for each violation.
func (v ValidationErrors) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	for _, one := range v {
		enc.AppendString(one.String())
	}
	return nil
}

// err returns v as an error, or nil if it is empty.
func (v ValidationErrors) err() error {
	if len(v) == 0 {
		return nil
	}
	if last := &v[len(v)-1]; last.more > 0 {
		last.Message = fmt.Sprintf("and %d more", last.more)
	}
	return v
}

// ofDocument reports whether the document as a whole is at fault.
func (v Violation) ofDocument() bool { return v.Field == "" && v.more == 0 }

func (v *ValidationErrors) add(field, message string) {
	v.append(Violation{Field: field, Message: message})
}

// append adds violations, or counts them if there are enough.
func (v *ValidationErrors) append(others ...Violation) {
	for _, one := range others {
		if len(*v) < maxViolations {
			*v = append(*v, one)
			continue
		}
		if len(*v) == maxViolations {
			*v = append(*v, Violation{Conflict: true})
		}
		last := &(*v)[maxViolations]
		last.more += max(1, one.more)
		last.Conflict = last.Conflict && one.Conflict
	}
}

// merge adds the violations that validation found to those that decoding found.
// It leaves out fields that couldn't be decoded, which validation takes for
// missing, and everything if the document isn't an endpoint.
func (v ValidationErrors) merge(found ValidationErrors) ValidationErrors {
	known := map[string]bool{}
	for _, one := range v {
		known[one.Field] = true
	}
	if v.NotAnEndpoint() {
		return v
	}
	for _, one := range found {
		if one.more > 0 || !known[one.Field] {
			v.append(one)
		}
	}
	return v
}
