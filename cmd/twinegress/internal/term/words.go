package term

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"
)

// PrintJSON writes v as indented JSON.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// Grouped formats 1234567 as 1,234,567.
func Grouped[N int | int64 | uint64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Count formats a number of things: no troubles, 1 trouble, 2 troubles.
func Count(n int, one, many string) string {
	switch n {
	case 0:
		return "no " + many
	case 1:
		return "1 " + one
	}
	return Grouped(n) + " " + many
}

// Rate formats a rate, with a decimal only below 10.
func Rate(perSecond float64) string {
	if perSecond > 0 && perSecond < 10 {
		return strconv.FormatFloat(perSecond, 'f', 1, 64)
	}
	return Grouped(int64(perSecond + .5))
}

// Short formats a count in at most five characters: 9,999, 12.3k, 123M.
func Short[N int | int64 | uint64](n N) string {
	if n < 10_000 {
		return Grouped(n)
	}
	const units = "kMGTPE"
	v := float64(n)
	for i := range units {
		v /= 1000
		switch {
		case v < 99.95:
			return strconv.FormatFloat(v, 'f', 1, 64) + units[i:i+1]
		case v < 999.5:
			return strconv.FormatFloat(v, 'f', 0, 64) + units[i:i+1]
		}
	}
	return "many" // not a count of ours
}

// Ago formats how long something takes or is ago, in one unit: 12s, 4m, 3h, 12d.
func Ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(max(d, 0).Seconds())) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d"
}

// Clock formats an uptime as 1:05 or 2:03:04.
func Clock(d time.Duration) string {
	s := int(d.Seconds())
	if s < 3600 {
		return fmt.Sprintf("%d:%02d", s/60, s%60)
	}
	return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
}

// Latency formats a latency in at most five characters. Kafka's timestamps are
// whole milliseconds, so nothing finer is known.
func Latency(d time.Duration) string {
	switch {
	case d <= 0:
		return "-"
	case d < time.Millisecond:
		return "<1ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	default:
		return strconv.FormatInt(int64(d.Minutes()), 10) + "min"
	}
}
