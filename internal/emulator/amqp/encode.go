package amqp

import "encoding/binary"

func appendUint(b []byte, v uint32) []byte {
	switch {
	case v == 0:
		return append(b, 0x43)
	case v < 256:
		return append(b, 0x52, byte(v))
	}
	return binary.BigEndian.AppendUint32(append(b, 0x70), v)
}

func appendUlong(b []byte, v uint64) []byte {
	switch {
	case v == 0:
		return append(b, 0x44)
	case v < 256:
		return append(b, 0x53, byte(v))
	}
	return binary.BigEndian.AppendUint64(append(b, 0x80), v)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 0x41)
	}
	return append(b, 0x42)
}

// appendVar appends binary (0xa0), a string (0xa1) or a symbol (0xa3).
func appendVar[T string | []byte](b []byte, ctor byte, v T) []byte {
	if len(v) < 256 {
		return append(append(b, ctor, byte(len(v))), v...)
	}
	return append(binary.BigEndian.AppendUint32(append(b, ctor|0x10), uint32(len(v))), v...)
}

func appendString(b []byte, v string) []byte { return appendVar(b, 0xa1, v) }
func appendSymbol(b []byte, v string) []byte { return appendVar(b, 0xa3, v) }

// beginComposite starts a described list of n < 256 fields; endList sets its size.
func beginComposite(b []byte, code byte, n int) ([]byte, int) {
	return append(b, 0x00, 0x53, code, 0xd0, 0, 0, 0, 0, 0, 0, 0, byte(n)), len(b) + 3
}

// endList sets the size of the list, map or array that starts at a position.
func endList(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at+1:], uint32(len(b)-at-5))
	return b
}

// appendSymbols appends an array of symbols.
func appendSymbols(b []byte, symbols []string) []byte {
	at := len(b)
	b = append(b, 0xf0, 0, 0, 0, 0, 0, 0, 0, byte(len(symbols)), 0xb3)
	for _, s := range symbols {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	return endList(b, at)
}
