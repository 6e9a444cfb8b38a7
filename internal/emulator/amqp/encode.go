package amqp

import (
	"encoding/binary"
	"fmt"
	"math"
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

// beginList starts a list whose size is filled in by endList.
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

// appendValue appends any of the types that decoder.value returns, and []string as an array.
func appendValue(b []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(b, 0x40), nil
	case bool:
		return appendBool(b, v), nil
	case uint8:
		return append(b, 0x50, v), nil
	case uint16:
		return binary.BigEndian.AppendUint16(append(b, 0x60), v), nil
	case uint32:
		return appendUint(b, v), nil
	case uint64:
		return appendUlong(b, v), nil
	case int8:
		return append(b, 0x51, byte(v)), nil
	case int16:
		return binary.BigEndian.AppendUint16(append(b, 0x61), uint16(v)), nil
	case int32:
		return binary.BigEndian.AppendUint32(append(b, 0x71), uint32(v)), nil
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 0x81), uint64(v)), nil
	case float32:
		return binary.BigEndian.AppendUint32(append(b, 0x72), math.Float32bits(v)), nil
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 0x82), math.Float64bits(v)), nil
	case Char:
		return binary.BigEndian.AppendUint32(append(b, 0x73), uint32(v)), nil
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
	case []Symbol:
		return appendArray(b, 0xb3, v), nil
	case []any:
		return appendElems(append(b, 0xd0), len(v), func(b []byte) ([]byte, error) {
			var err error
			for _, x := range v {
				if b, err = appendValue(b, x); err != nil {
					return nil, err
				}
			}
			return b, nil
		})
	case map[any]any:
		return appendMap(b, v)
	case map[string]any:
		return appendMap(b, v)
	case Described:
		b, err := appendValue(append(b, 0x00), v.Descriptor)
		if err != nil {
			return nil, err
		}
		return appendValue(b, v.Value)
	}
	return nil, fmt.Errorf("amqp: can't encode a %T", v)
}

func appendMap[K comparable](b []byte, m map[K]any) ([]byte, error) {
	return appendElems(append(b, 0xd1), 2*len(m), func(b []byte) ([]byte, error) {
		var err error
		for k, v := range m {
			if b, err = appendValue(b, k); err == nil {
				b, err = appendValue(b, v)
			}
			if err != nil {
				return nil, err
			}
		}
		return b, nil
	})
}

// appendElems appends size and count, then what body appends, and fixes the size up.
func appendElems(b []byte, n int, body func([]byte) ([]byte, error)) ([]byte, error) {
	at := len(b)
	b = binary.BigEndian.AppendUint32(append(b, 0, 0, 0, 0), uint32(n))
	b, err := body(b)
	if err != nil {
		return nil, err
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
