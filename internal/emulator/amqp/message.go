package amqp

import (
	"errors"
	"fmt"

	goamqp "github.com/Azure/go-amqp"
)

// BatchFormat is the message format of a batch: each data section holds one encoded message.
const BatchFormat = 0x80013700

// Section codes.
const (
	secMessageAnnotations = 0x72
	secProperties         = 0x73
	secData               = 0x75
	secValue              = 0x77
)

// EachMessage calls fn for each message of a delivery: those in its data sections
// if format is BatchFormat, else the delivery itself. The slices alias payload.
func EachMessage(format uint32, payload []byte, fn func(encoded []byte)) error {
	if format != BatchFormat {
		if len(payload) == 0 {
			return errors.New("amqp: empty message")
		}
		fn(payload)
		return nil
	}
	d := decoder{b: payload}
	for len(d.b) > 0 {
		code := d.descriptor()
		if code == secData {
			m := d.bytes()
			if d.err == nil && len(m) > 0 {
				fn(m)
			}
			continue
		}
		d.raw()
	}
	return d.err
}

// MessageID returns the bytes of a message's id, nil if there is none. It decodes
// nothing else. A uint64 or UUID id is returned as its encoded bytes.
func MessageID(encoded []byte) ([]byte, error) {
	d := decoder{b: encoded}
	for len(d.b) > 0 {
		code := d.descriptor()
		if code < secProperties {
			d.raw()
			continue
		}
		if code != secProperties {
			break // sections are in order: it has no properties
		}
		f, n := d.list()
		if n == 0 || f.null() {
			break
		}
		v := decoder{b: f.raw()}
		if f.err != nil {
			return nil, f.err
		}
		c := v.byte()
		return v.body(c), v.err
	}
	return nil, d.err
}

// Body returns a message's data sections, joined. It decodes nothing else. An
// amqp-value of text or binary counts as data.
func Body(encoded []byte) (body []byte, err error) {
	d := decoder{b: encoded}
	for len(d.b) > 0 {
		code := d.descriptor()
		section := decoder{b: d.raw()}
		if code != secData && code != secValue {
			continue
		}
		v := section.bytes()
		switch {
		case d.err != nil || section.err != nil:
		case body == nil:
			body = v // usually there is one section; no copy
		default:
			body = append(body[:len(body):len(body)], v...)
		}
	}
	return body, d.err
}

// Annotation returns the text of one message annotation, "" if absent.
func Annotation(encoded []byte, name string) string {
	d := decoder{b: encoded}
	for len(d.b) > 0 {
		code := d.descriptor()
		if code == secMessageAnnotations {
			return d.lookup(name)
		}
		if code > secMessageAnnotations {
			break // sections are in order
		}
		d.raw()
	}
	return ""
}

// DecodeMessage decodes a message with go-amqp, which trusts it. A value nested too
// deeply would overflow the stack, which ends the process; and what can't be the key of
// a map of Go's panics. Both are looked for before, and what is missed of the second
// is an error, too: go-amqp keeps nothing of a message that it did not decode.
func DecodeMessage(encoded []byte) (m *goamqp.Message, err error) {
	d := decoder{b: encoded}
	for len(d.b) > 0 {
		d.check(0)
	}
	if d.err != nil {
		return nil, d.err
	}
	defer func() {
		if r := recover(); r != nil {
			m, err = nil, fmt.Errorf("amqp: %v", r)
		}
	}()
	m = new(goamqp.Message)
	return m, m.UnmarshalBinary(encoded)
}
