package amqp

import (
	"encoding/binary"
	"fmt"
	"time"
)

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
func appendVar[T string | []byte | Symbol](b []byte, ctor byte, v T) []byte {
	if len(v) < 256 {
		return append(append(b, ctor, byte(len(v))), v...)
	}
	return append(binary.BigEndian.AppendUint32(append(b, ctor|0x10), uint32(len(v))), v...)
}

func appendString(b []byte, v string) []byte { return appendVar(b, 0xa1, v) }
func appendSymbol(b []byte, v Symbol) []byte { return appendVar(b, 0xa3, v) }

// beginList starts a list; endList sets its size.
func beginList(b []byte, n int) ([]byte, int) {
	return append(b, 0xd0, 0, 0, 0, 0, 0, 0, 0, byte(n)), len(b)
}

func endList(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at+1:], uint32(len(b)-at-5))
	return b
}

// beginComposite starts a described list of n < 256 fields.
func beginComposite(b []byte, code byte, n int) ([]byte, int) {
	return beginList(append(b, 0x00, 0x53, code), n)
}

// appendValue appends a value. It has the types of replies and link properties.
func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, 0x40), nil
	case bool:
		return appendBool(b, v), nil
	case uint64:
		return appendUlong(b, v), nil
	case int32:
		return binary.BigEndian.AppendUint32(append(b, 0x71), uint32(v)), nil
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 0x81), uint64(v)), nil
	case time.Time:
		return binary.BigEndian.AppendUint64(append(b, 0x83), uint64(v.UnixMilli())), nil
	case UUID:
		return append(append(b, 0x98), v[:]...), nil
	case []byte:
		return appendVar(b, 0xa0, v), nil
	case string:
		return appendString(b, v), nil
	case Symbol:
		return appendSymbol(b, v), nil
	case []string:
		return appendArray(b, 0xb1, v), nil
	case map[string]any:
		return appendMap(b, v)
	}
	return nil, fmt.Errorf("amqp: can't encode a %T", v)
}

func appendMap[K comparable](b []byte, m map[K]any) (_ []byte, err error) {
	b = append(b, 0xd1)
	at := len(b)
	b = binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 0), uint32(2*len(m)))
	for k, v := range m {
		if b, err = appendValue(b, k); err == nil {
			b, err = appendValue(b, v)
		}
		if err != nil {
			return nil, err
		}
	}
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b, nil
}

// appendArray appends an array of strings or symbols, always in the wide form.
func appendArray[T string | Symbol](b []byte, elem byte, v []T) []byte {
	b = append(b, 0xf0)
	at := len(b)
	b = binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 0), uint32(len(v)))
	b = append(b, elem)
	for _, s := range v {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
	}
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return b
}
