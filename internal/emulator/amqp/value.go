package amqp

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"
)

// Types of AMQP that Go has no own type for.
type (
	// Symbol is an AMQP symbol.
	Symbol string
	// UUID is an AMQP uuid.
	UUID [16]byte
	// Char is an AMQP char.
	Char rune
)

func (u UUID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// MarshalText returns the uuid's text, for JSON.
func (u UUID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// Described is a value with a descriptor that this package has no type for.
type Described struct {
	Descriptor any
	Value      any
}

// value decodes the next value into a Go value.
func (d *decoder) value(depth int) any {
	if depth > maxDepth {
		d.fail(errDepth)
		return nil
	}
	c := d.byte()
	if d.err != nil {
		return nil // byte returned 0, which would start a described value
	}
	switch c {
	case 0x00:
		desc := d.value(depth + 1)
		return Described{desc, d.value(depth + 1)}
	case 0xc0, 0xd0:
		in, n := d.compound(c)
		out := make([]any, 0, min(n, 64))
		for range n {
			if in.err != nil {
				break
			}
			out = append(out, in.value(depth+1))
		}
		d.adopt(&in)
		return out
	case 0x45:
		return []any{}
	case 0xc1, 0xd1:
		in, n := d.compound(c)
		return d.mapOf(in, n, depth)
	case 0xe0, 0xf0:
		return d.array(c, depth)
	}
	b := d.body(c)
	if d.err != nil {
		return nil
	}
	return d.scalar(c, b)
}

// adopt copies the error of a decoder for a part.
func (d *decoder) adopt(in *decoder) {
	if in.err != nil {
		d.fail(in.err)
	}
}

func (d *decoder) mapOf(in decoder, n, depth int) map[any]any {
	if n%2 != 0 {
		d.fail(errors.New("amqp: map with an odd number of elements"))
		return nil
	}
	m := make(map[any]any, min(n/2, 64))
	for range n / 2 {
		k := in.value(depth + 1)
		v := in.value(depth + 1)
		if in.err != nil {
			break
		}
		switch k.(type) {
		case []byte, []any, map[any]any, Described:
			in.fail(fmt.Errorf("amqp: map key of type %T", k))
		default:
			m[k] = v
		}
	}
	d.adopt(&in)
	return m
}

// array decodes an array into a []any of its elements.
func (d *decoder) array(ctor byte, depth int) any {
	wide := ctor == 0xf0
	in := decoder{b: d.body(ctor), err: d.err}
	n := in.size(wide)
	elem := in.byte()
	if elem == 0 { // an array of described values, which no SDK sends
		in.fail(errors.New("amqp: array of described values"))
	}
	if in.err == nil && elem>>4 == 0x4 && n > 1<<16 || elem>>4 != 0x4 && n > len(in.b) {
		in.fail(errShort)
	}
	out := []any{}
	for i := 0; i < n && in.err == nil; i++ {
		switch elem {
		case 0x45:
			out = append(out, []any{})
		case 0xc0, 0xd0, 0xc1, 0xd1, 0xe0, 0xf0:
			// The elements have no constructor of their own: prepend the array's.
			one := decoder{b: append([]byte{elem}, in.elem(elem)...), err: in.err}
			out = append(out, one.value(depth+1))
			in.adopt(&one)
		default:
			b := in.body(elem)
			if in.err == nil {
				out = append(out, in.scalar(elem, b))
			}
		}
	}
	d.adopt(&in)
	return out
}

// elem returns a compound element with its size in front.
func (d *decoder) elem(ctor byte) []byte {
	start := d.b
	d.body(ctor)
	if d.err != nil {
		return nil
	}
	return start[:len(start)-len(d.b)]
}

func (d *decoder) scalar(c byte, b []byte) any {
	var u uint64
	if c>>4 <= 0x8 {
		for _, x := range b {
			u = u<<8 | uint64(x)
		}
	}
	switch c {
	case 0x40:
		return nil
	case 0x41:
		return true
	case 0x42:
		return false
	case 0x56:
		return u != 0
	case 0x50:
		return uint8(u)
	case 0x60:
		return uint16(u)
	case 0x43, 0x52, 0x70:
		return uint32(u)
	case 0x44, 0x53, 0x80:
		return u
	case 0x51:
		return int8(u)
	case 0x61:
		return int16(u)
	case 0x54:
		return int32(int8(u))
	case 0x71:
		return int32(u)
	case 0x55:
		return int64(int8(u))
	case 0x81:
		return int64(u)
	case 0x72:
		return math.Float32frombits(uint32(u))
	case 0x82:
		return math.Float64frombits(u)
	case 0x73:
		return Char(u)
	case 0x83:
		return time.UnixMilli(int64(u)).UTC()
	case 0x98:
		return UUID(b)
	case 0xa0, 0xb0:
		return append([]byte{}, b...)
	case 0xa1, 0xb1:
		if !utf8.Valid(b) {
			d.fail(errors.New("amqp: string that isn't UTF-8"))
			return nil
		}
		return string(b)
	case 0xa3, 0xb3:
		return Symbol(b)
	}
	d.fail(fmt.Errorf("amqp: unsupported type 0x%02x", c))
	return nil
}
