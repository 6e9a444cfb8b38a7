package config

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes.
type ByteSize int64

// byteUnits are tried in this order when printing: the largest that divides.
var byteUnits = []struct {
	name string
	size int64
}{
	{"TiB", 1 << 40},
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
	{"B", 1},
}

// ParseByteSize parses 64MiB, 1MB, 1.5GiB or a plain number of bytes. It ignores
// the unit's case and a space before it.
func ParseByteSize(s string) (ByteSize, error) {
	num, unit := strings.TrimSpace(s), int64(1)
	for _, u := range byteUnits {
		if len(num) > len(u.name) && strings.EqualFold(num[len(num)-len(u.name):], u.name) {
			num, unit = strings.TrimSpace(num[:len(num)-len(u.name)]), u.size
			break
		}
	}
	bad := fmt.Errorf("%q is not a size: use a number of bytes, or one with a unit such as 64MiB or 1MB", s)
	if n, err := strconv.ParseInt(num, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/unit {
			return 0, bad
		}
		return ByteSize(n * unit), nil
	}
	// Digits and a dot only: ParseFloat also accepts 1e9, 0x1p4, Inf and NaN.
	if strings.Trim(num, "0123456789.") != "" {
		return 0, bad
	}
	f, err := strconv.ParseFloat(num, 64)
	if err != nil || f*float64(unit) >= math.MaxInt64 {
		return 0, bad
	}
	return ByteSize(f * float64(unit)), nil
}

// String formats the size in the largest unit that divides it.
func (b ByteSize) String() string {
	for _, u := range byteUnits {
		if b != 0 && int64(b)%u.size == 0 && u.size > 1 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// MarshalText returns String.
func (b ByteSize) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// Secret is a string that is masked as *** by every verb of fmt, JSON, YAML and
// the loggers. Only Reveal returns it.
type Secret string

// Reveal returns the secret in the clear.
func (s Secret) Reveal() string { return string(s) }

// String returns the mask.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// Format writes the mask for every verb, %#v too: without it %x would print the bytes.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText returns the mask, in JSON too.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
