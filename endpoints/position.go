package endpoints

import (
	"slices"
	"time"
)

// Where an endpoint starts, or a seek leads to, other than a time.
const (
	StartNow = "now"      // of StartAt alone
	Earliest = "earliest" // all that Kafka still has
	Latest   = "latest"   // of a seek alone: what came before it is skipped
	Cancel   = "cancel"   // of a seek alone: back to where the endpoint was before the last one
)

var (
	startWords = []string{StartNow, Earliest}
	seekWords  = []string{Earliest, Latest, Cancel}
)

// canonicalPosition returns the canonical spelling of a word, a time in UTC, or
// anything else as it is.
func canonicalPosition(s string, words []string) string {
	if s = fold(s, words); s == "" || slices.Contains(words, s) {
		return s
	}
	if at, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return formatTime(at)
	}
	return s
}

func formatTime(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }

// isPosition reports whether a canonical s is one of words, or a time that Kafka
// knows: it counts from 1970.
func isPosition(s string, words []string) bool {
	if slices.Contains(words, s) {
		return true
	}
	at, err := time.Parse(time.RFC3339Nano, s)
	return err == nil && at.Unix() >= 0
}

// checkPositions adds violations about where the endpoint starts and was sought to.
// A seek is never in a body, but may be written into the endpoints file.
func (e Endpoint) checkPositions(v *ValidationErrors) {
	if !isPosition(e.StartAt, startWords) {
		v.add("startAt", "must be now, earliest, or a time since 1970 with its zone, such as 2026-01-31T08:00:00Z")
	}
	if e.SeekTo != "" && !isPosition(e.SeekTo, seekWords) {
		v.add("seekTo", "must be earliest, latest, cancel, or a time with its zone, as a seek writes it")
	}
	if e.SeekAt != "" && !isPosition(e.SeekAt, nil) {
		v.add("seekAt", "must be a time with its zone, as a seek writes it")
	}
}

// checkStart adds a violation if a new endpoint is to start in the future, or if one
// that is stored is to have started elsewhere.
func (e Endpoint) checkStart(stored Endpoint, v *ValidationErrors) {
	if stored.ID == "" {
		if at, err := time.Parse(time.RFC3339Nano, e.StartAt); err == nil && at.After(time.Now()) {
			v.add("startAt", "is a time in the future: an endpoint starts now, or earlier")
		}
		return
	}
	if isPosition(e.StartAt, startWords) && e.StartAt != stored.canonical().StartAt {
		v.add("startAt", "counts when an endpoint is created, and can't be changed: leave it out, and order a seek, which sends "+
			"the endpoint to another time (POST …/endpoints/{id}/seek, twinegress endpoints seek)")
	}
}

// seekOfFile is the SeekAt of what follows from an entry's StartAt in the endpoints
// file, which is read anew at each start: there a seek is another one only if its
// StartAt is.
const seekOfFile = "1970-01-01T00:00:00Z"

// orderStart orders the seek that leads a new endpoint to its StartAt, at a time or
// at seekOfFile.
func (e *Endpoint) orderStart(at string) {
	if e.SeekTo == "" && e.StartAt != StartNow {
		e.SeekTo, e.SeekAt = e.StartAt, at
	}
}
