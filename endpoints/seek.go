package endpoints

import (
	"errors"
	"slices"
	"time"
)

// Seek returns e with a seek that was ordered at a time; to is what ParseSeek returned.
func (e Endpoint) Seek(to string, at time.Time) Endpoint {
	e.SeekTo, e.SeekAt = to, formatTime(at)
	return e
}

// ParseSeek returns the canonical form of where a seek leads to, or an error that says
// which forms there are. How long ago is counted from now.
func ParseSeek(s string, now time.Time) (string, error) {
	to := canonicalPosition(s, seekWords)
	if ago, err := time.ParseDuration(to); err == nil && ago >= 0 {
		to = formatTime(now.Add(-ago))
	}
	if slices.Contains(seekWords, to) {
		return to, nil
	}
	switch at, err := time.Parse(time.RFC3339Nano, to); {
	case err != nil:
		return "", errors.New("must be earliest, latest, cancel, a time with its zone such as 2026-01-31T08:00:00Z, or how long ago, such as 90m")
	case at.Unix() < 0:
		return "", errors.New("is before 1970: earliest means everything that Kafka still has")
	case at.After(now):
		return "", errors.New("is a time in the future: latest skips everything up to now")
	}
	return to, nil
}
