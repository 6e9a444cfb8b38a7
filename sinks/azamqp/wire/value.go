package wire

import "encoding/binary"

// maxDepth is how deep a value may be nested. The deepest of a service is an
// array in a map in a message. The library follows any depth, and Go ends the
// process when a stack is a gigabyte.
const maxDepth = 16

// The encodings of AMQP 1.0, part 1.6, that matter here. The first four bits of
// a code are the width: 4 to 9 fixed, a and b variable, c and d compounds, e
// and f arrays.
const (
	null       = 0x40
	boolTrue   = 0x41
	boolFalse  = 0x42
	uint0      = 0x43
	list0      = 0x45
	smallUint  = 0x52
	smallUlong = 0x53
	boolean    = 0x56
	uint32Code = 0x70
	ulong      = 0x80
	binary8    = 0xa0
	list8      = 0xc0
	map8       = 0xc1
	list32     = 0xd0
	map32      = 0xd1
)

var errMalformed = &Violation{"a malformed value"}

// value checks the value at the beginning of b and returns what follows it.
func value(b []byte, depth int) (rest []byte, err error) {
	switch {
	case len(b) == 0:
		return nil, errMalformed
	case depth > maxDepth:
		return nil, violation("a value nested more than %d deep", maxDepth)
	case b[0] != 0:
		return content(b[0], b[1:], depth)
	}
	// A described one: the descriptor is a number or a symbol.
	b = b[1:]
	if len(b) == 0 || !isPrimitive(b[0]) {
		return nil, errMalformed
	}
	if b, err = content(b[0], b[1:], depth); err != nil {
		return nil, err
	}
	return value(b, depth+1)
}

// isPrimitive reports whether a code is of a value that has no others in it.
func isPrimitive(code byte) bool { return code >= null && code < list8 && code != list0 }

// isKey reports whether a code is of a value that a map can have for a key: all
// primitive ones but binary, which is a slice.
func isKey(code byte) bool { return isPrimitive(code) && code&^0x10 != binary8 }

// widths of the values of fixed width, by the first four bits of their code.
var widths = [...]int{0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}

// content checks a value whose code has been read.
func content(code byte, b []byte, depth int) (rest []byte, err error) {
	kind := code >> 4
	switch {
	case kind < 0x4:
		return nil, errMalformed
	case kind <= 0x9:
		if len(b) < widths[kind] {
			return nil, errMalformed
		}
		return b[widths[kind]:], nil
	}
	in, rest, err := sized(b, kind%2 == 1)
	if err != nil || kind <= 0xb {
		return rest, err
	}
	count, in, err := counted(in, kind%2 == 1)
	if err != nil {
		return nil, err
	}
	if kind <= 0xd {
		return rest, items(in, count, code == map8 || code == map32, depth+1)
	}
	if len(in) == 0 || in[0] == 0 {
		return nil, errMalformed
	}
	of, in := in[0], in[1:]
	for range count {
		if in, err = content(of, in, depth+1); err != nil {
			return nil, err
		}
	}
	if len(in) > 0 {
		return nil, errMalformed
	}
	return rest, nil
}

// items checks the values of a list or a map, and that there is nothing else in
// it. A map of Go's can't have every value of AMQP's for a key: the library tries,
// and that ends the process.
func items(b []byte, count int, isMap bool, depth int) (err error) {
	if isMap && count%2 != 0 {
		return errMalformed
	}
	for i := range count {
		if isMap && i%2 == 0 && (len(b) == 0 || !isKey(b[0])) {
			return violation("a map whose key is no number, text or symbol")
		}
		if b, err = value(b, depth); err != nil {
			return err
		}
	}
	if len(b) > 0 {
		return errMalformed
	}
	return nil
}

// sized splits b after as many bytes as its first say.
func sized(b []byte, wide bool) (in, rest []byte, err error) {
	n, b, err := counted(b, wide)
	if err != nil || n > len(b) {
		return nil, nil, errMalformed
	}
	return b[:n], b[n:], nil
}

// counted reads a number of one byte, or of four. No number is longer than a frame.
func counted(b []byte, wide bool) (n int, rest []byte, err error) {
	if !wide {
		if len(b) < 1 {
			return 0, nil, errMalformed
		}
		return int(b[0]), b[1:], nil
	}
	if len(b) < 4 || binary.BigEndian.Uint32(b) > MaxFrame {
		return 0, nil, errMalformed
	}
	return int(binary.BigEndian.Uint32(b)), b[4:], nil
}

// performative has the fields of a frame: nil where there are fewer.
type performative [16][]byte

// fields checks a list and returns its values, and what follows it.
func fields(b []byte) (f performative, rest []byte, err error) {
	if len(b) == 0 || b[0] != list0 && b[0] != list8 && b[0] != list32 {
		return f, nil, errMalformed
	}
	if b[0] == list0 {
		return f, b[1:], nil
	}
	wide := b[0] == list32
	in, rest, err := sized(b[1:], wide)
	if err != nil {
		return f, nil, err
	}
	count, in, err := counted(in, wide)
	if err != nil || count > len(f) {
		return f, nil, errMalformed
	}
	for i := range count {
		after, err := value(in, 1)
		if err != nil {
			return f, nil, err
		}
		f[i], in = in[:len(in)-len(after)], after
	}
	if len(in) > 0 {
		return f, nil, errMalformed
	}
	return f, rest, nil
}

func isNull(field []byte) bool { return len(field) == 0 || field[0] == null }

func isTrue(field []byte) bool {
	return len(field) > 0 && (field[0] == boolTrue || field[0] == boolean && field[1] != 0)
}

func isFalse(field []byte) bool {
	return len(field) > 0 && (field[0] == boolFalse || field[0] == boolean && field[1] == 0)
}

// number returns the uint in a field; set says whether it has one.
func number(field []byte) (n uint32, set bool, err error) {
	if isNull(field) {
		return 0, false, nil
	}
	switch field[0] {
	case uint0:
		return 0, true, nil
	case smallUint:
		return uint32(field[1]), true, nil
	case uint32Code:
		return binary.BigEndian.Uint32(field[1:]), true, nil
	}
	return 0, false, errMalformed
}

// long returns a number of 64 bits; 0 if there is none.
func long(field []byte) uint64 {
	switch {
	case len(field) == 9 && field[0] == ulong:
		return binary.BigEndian.Uint64(field[1:])
	case len(field) == 2 && field[0] == smallUlong:
		return uint64(field[1])
	}
	return 0
}

// text returns the string or symbol in a field.
func text(field []byte) string {
	switch {
	case len(field) > 1 && field[0]>>4 == 0xa:
		return string(field[2:])
	case len(field) > 4 && field[0]>>4 == 0xb:
		return string(field[5:])
	}
	return ""
}
