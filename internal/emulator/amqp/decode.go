package amqp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

var (
	errShort = errors.New("amqp: truncated value")
	errDepth = errors.New("amqp: value nested too deeply")
	errKey   = errors.New("amqp: a map with a key of binary or of several values, or without its last value")
)

// maxDepth bounds the nesting of decoded values, and with it the stack.
const maxDepth = 64

// decoder reads values from a buffer. It keeps the first error, and every later
// read returns zero, so that callers check once. Returned slices alias the buffer.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) next(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail(errShort)
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail(errShort)
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) u32() uint32 {
	if b := d.next(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// size reads the width-byte size in front of variable data.
func (d *decoder) size(wide bool) int {
	if !wide {
		return int(d.byte())
	}
	n := d.u32()
	if n > math.MaxInt32 {
		d.fail(errShort)
		return 0
	}
	return int(n)
}

// body returns the bytes after a constructor. Their length depends on its high
// nibble alone, whatever the type, which makes skipping cheap.
func (d *decoder) body(ctor byte) []byte {
	switch ctor >> 4 {
	case 0x4:
		return d.next(0)
	case 0x5:
		return d.next(1)
	case 0x6:
		return d.next(2)
	case 0x7:
		return d.next(4)
	case 0x8:
		return d.next(8)
	case 0x9:
		return d.next(16)
	case 0xa, 0xc, 0xe:
		return d.next(d.size(false))
	case 0xb, 0xd, 0xf:
		return d.next(d.size(true))
	}
	d.fail(fmt.Errorf("amqp: unknown constructor 0x%02x", ctor))
	return nil
}

// raw returns the encoding of the next value.
func (d *decoder) raw() []byte {
	start := d.b
	for n := 0; ; n++ {
		if n > maxDepth {
			d.fail(errDepth)
		}
		if d.err != nil {
			return nil
		}
		ctor := d.byte()
		if ctor != 0 {
			d.body(ctor)
			break
		}
		d.raw1() // the descriptor; then the value itself
	}
	if d.err != nil {
		return nil
	}
	return start[:len(start)-len(d.b)]
}

// raw1 skips a descriptor, which can't be described itself.
func (d *decoder) raw1() {
	ctor := d.byte()
	if ctor == 0 {
		d.fail(errors.New("amqp: a descriptor can't be described"))
		return
	}
	d.body(ctor)
}

// descriptor reads the descriptor of a described value, which follows.
func (d *decoder) descriptor() uint64 {
	if c := d.byte(); c != 0 {
		d.fail(fmt.Errorf("amqp: 0x%02x where a described value belongs", c))
		return 0
	}
	switch c := d.byte(); c {
	case 0x53:
		return uint64(d.byte())
	case 0x44:
		return 0
	case 0x80:
		if b := d.next(8); b != nil {
			return binary.BigEndian.Uint64(b)
		}
	default:
		d.fail(fmt.Errorf("amqp: descriptor of type 0x%02x", c))
	}
	return 0
}

// composite reads a described list: its code, and a decoder for its fields.
func (d *decoder) composite() (code uint64, fields decoder, n int) {
	code = d.descriptor()
	fields, n = d.list()
	return code, fields, n
}

// list reads a list's header and returns its content. null is an empty list.
func (d *decoder) list() (decoder, int) {
	c := d.byte()
	switch c {
	case 0x45, 0x40:
		return decoder{}, 0
	case 0xc0, 0xd0:
		return d.compound(c)
	}
	d.fail(fmt.Errorf("amqp: 0x%02x where a list belongs", c))
	return decoder{err: d.err}, 0
}

// compound reads the size and count of a list or map.
func (d *decoder) compound(ctor byte) (decoder, int) {
	wide := ctor>>4 == 0xd
	in := decoder{b: d.body(ctor), err: d.err}
	n := in.size(wide)
	// Every element has at least a byte, so a larger count is wrong and would allocate too much.
	if n > len(in.b) {
		in.fail(errShort)
	}
	if in.err != nil {
		d.fail(in.err)
		return in, 0
	}
	return in, n
}

// null consumes a null if it is next.
func (d *decoder) null() bool {
	if len(d.b) > 0 && d.b[0] == 0x40 {
		d.b = d.b[1:]
		return true
	}
	return false
}

// uint reads any unsigned integer; absent and null are not ok.
func (d *decoder) uint() (v uint64, ok bool) {
	if len(d.b) == 0 || d.null() {
		return 0, false
	}
	c := d.byte()
	switch c {
	case 0x43, 0x44:
		return 0, true
	case 0x50, 0x52, 0x53, 0x60, 0x70, 0x80:
		for _, b := range d.body(c) {
			v = v<<8 | uint64(b)
		}
		return v, d.err == nil
	}
	d.fail(fmt.Errorf("amqp: 0x%02x where an unsigned integer belongs", c))
	return 0, false
}

func (d *decoder) bool() bool {
	if len(d.b) == 0 || d.null() {
		return false
	}
	switch c := d.byte(); c {
	case 0x41:
		return true
	case 0x42:
		return false
	case 0x56:
		return d.byte() != 0
	default:
		d.fail(fmt.Errorf("amqp: 0x%02x where a boolean belongs", c))
		return false
	}
}

// bytes reads binary, a string or a symbol.
func (d *decoder) bytes() []byte {
	if len(d.b) == 0 || d.null() {
		return nil
	}
	switch c := d.byte(); c {
	case 0xa0, 0xb0, 0xa1, 0xb1, 0xa3, 0xb3:
		return d.body(c)
	default:
		d.fail(fmt.Errorf("amqp: 0x%02x where bytes or text belong", c))
		return nil
	}
}

func (d *decoder) string() string { return string(d.bytes()) }

// lookup returns the text of a key of the map that is next, "" if it is absent.
func (d *decoder) lookup(name string) string {
	c := d.byte()
	if c != 0xc1 && c != 0xd1 {
		return ""
	}
	in, n := d.compound(c)
	for range n / 2 {
		k, v := decoder{b: in.raw()}, decoder{b: in.raw()}
		if in.err != nil {
			break
		}
		if string(k.bytes()) == name {
			return v.string()
		}
	}
	return ""
}

// check skips the next value, and fails if it is nested too deeply or has a map
// with a key that no map of Go's can have.
func (d *decoder) check(depth int) {
	c := d.byte()
	if depth > maxDepth {
		d.fail(errDepth)
	}
	switch kind := c >> 4; {
	case d.err != nil:
	case c == 0: // a described value
		d.check(depth + 1)
		d.check(depth + 1)
	case kind == 0xc || kind == 0xd: // a list or a map
		in, n := d.compound(c)
		isMap := c == 0xc1 || c == 0xd1
		if isMap && n%2 != 0 { // go-amqp would read on behind the map
			in.fail(errKey)
		}
		for i := 0; i < n && in.err == nil; i++ {
			if isMap && i%2 == 0 && len(in.b) > 0 && !isKey(in.b[0]) {
				in.fail(errKey)
			}
			in.check(depth + 1)
		}
		if in.err != nil {
			d.fail(in.err)
		}
	case kind == 0xe || kind == 0xf: // an array, which no SDK sends with nested values
		in := decoder{b: d.body(c), err: d.err}
		in.size(kind == 0xf)
		if elem := in.byte(); elem == 0 || elem >= 0xc0 {
			d.fail(errDepth)
		}
	default:
		d.body(c)
	}
}

// isKey reports whether a value with this constructor can be a key: a described
// value, binary, a list (0x45: the empty one), a map and an array can't.
func isKey(c byte) bool {
	return c != 0 && c != 0x45 && c != 0xa0 && c != 0xb0 && c < 0xc0
}
