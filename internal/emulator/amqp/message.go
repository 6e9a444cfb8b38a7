package amqp

import (
	"errors"
	"fmt"
)

// BatchFormat is the message format of a batch: each data section holds one encoded message.
const BatchFormat = 0x80013700

// Section codes.
const (
	secHeader              = 0x70
	secDeliveryAnnotations = 0x71
	secMessageAnnotations  = 0x72
	secProperties          = 0x73
	secApplicationProps    = 0x74
	secData                = 0x75
	secSequence            = 0x76
	secValue               = 0x77
	secFooter              = 0x78
)

// Message has the parts of a message that the emulator reads, and those of a
// reply. An absent part is empty. Body returns a message's data.
type Message struct {
	MessageID, CorrelationID any // string, uint64, UUID or []byte
	ContentType              string
	Annotations              map[any]any
	ApplicationProperties    map[string]any
	Value                    any
}

// sections calls fn for each section of an encoded message until fn returns
// false; body is the encoded value after the section's descriptor.
func sections(b []byte, fn func(code uint64, body []byte) bool) error {
	d := decoder{b: b}
	for len(d.b) > 0 {
		code := d.descriptor()
		body := d.raw()
		if d.err != nil {
			return d.err
		}
		if code < secHeader || code > secFooter {
			return fmt.Errorf("amqp: message section 0x%x", code)
		}
		if !fn(code, body) {
			return nil
		}
	}
	return nil
}

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
		id := f.raw()
		d.adopt(&f)
		if d.err != nil {
			break
		}
		v := decoder{b: id}
		c := v.byte()
		return v.body(c), v.err
	}
	return nil, d.err
}

// Body returns a message's data sections, joined. It decodes nothing else. An
// amqp-value of text or binary counts as data.
func Body(encoded []byte) (body []byte, err error) {
	err = sections(encoded, func(code uint64, raw []byte) bool {
		if code == secData || code == secValue {
			d := decoder{b: raw}
			if v := d.bytes(); d.err == nil {
				if body == nil {
					body = v // usually there is one section; no copy
				} else {
					body = append(body[:len(body):len(body)], v...)
				}
			}
		}
		return true
	})
	return body, err
}

// Annotation returns the text of one message annotation, "" if absent.
func Annotation(encoded []byte, name string) (text string) {
	d := decoder{b: encoded}
	for len(d.b) > 0 {
		code := d.descriptor()
		if code < secMessageAnnotations {
			d.raw()
			continue
		}
		if code != secMessageAnnotations {
			return ""
		}
		c := d.byte()
		if c != 0xc1 && c != 0xd1 {
			return ""
		}
		in, n := d.compound(c)
		for range n / 2 {
			k, v := in.raw(), in.raw()
			if in.err != nil {
				return ""
			}
			if kd := (decoder{b: k}); string(kd.bytes()) == name {
				vd := decoder{b: v}
				return string(vd.bytes())
			}
		}
		return ""
	}
	return ""
}

// DecodeMessage decodes a message.
func DecodeMessage(encoded []byte) (*Message, error) {
	m := &Message{}
	var bad error
	err := sections(encoded, func(code uint64, body []byte) bool {
		d := decoder{b: body}
		switch code {
		case secMessageAnnotations:
			m.Annotations, bad = asMap(d.value(0))
		case secProperties:
			m.decodeProperties(&d)
		case secApplicationProps:
			var am map[any]any
			am, bad = asMap(d.value(0))
			m.ApplicationProperties = make(map[string]any, len(am))
			for k, v := range am {
				if s, ok := k.(string); ok {
					m.ApplicationProperties[s] = v
				} else {
					bad = fmt.Errorf("amqp: application property with a key of type %T", k)
				}
			}
		case secValue:
			m.Value = d.value(0)
		}
		if d.err != nil {
			bad = d.err
		}
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func asMap(v any) (map[any]any, error) {
	m, ok := v.(map[any]any)
	if !ok && v != nil {
		return nil, fmt.Errorf("amqp: %T where a map belongs", v)
	}
	return m, nil
}

func (m *Message) decodeProperties(d *decoder) {
	f, _ := d.list()
	value := func() any {
		if len(f.b) == 0 {
			return nil
		}
		return f.value(0)
	}
	m.MessageID = value()
	for range 4 { // user-id, to, subject, reply-to
		value()
	}
	m.CorrelationID = value()
	m.ContentType = f.string()
	d.adopt(&f)
}

// appendReply appends the encoding of a reply: correlation id, application
// properties and value.
func (m *Message) appendReply(b []byte) ([]byte, error) {
	b, at := beginComposite(b, secProperties, 6)
	b = append(b, 0x40, 0x40, 0x40, 0x40, 0x40) // the fields before correlation-id
	b, err := appendValue(b, m.CorrelationID)
	if err != nil {
		return nil, err
	}
	b, err = appendMap(append(endList(b, at), 0x00, 0x53, secApplicationProps), m.ApplicationProperties)
	if err != nil || m.Value == nil {
		return b, err
	}
	return appendValue(append(b, 0x00, 0x53, secValue), m.Value)
}
