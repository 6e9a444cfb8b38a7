package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinegress/internal/event"
	"twinegress/pipeline/letters"
)

// selectionFlags say which dead letters are meant.
type selectionFlags struct {
	endpoint     string // id or name; "" is all
	reasons      []string
	since, until string
}

func (s *selectionFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.endpoint, "endpoint", "", "only the letters of this endpoint, by its id or its name")
	f.StringSliceVar(&s.reasons, "reason", nil, "only letters of these reasons: with commas, or repeated")
	f.StringVar(&s.since, "since", "", "only letters stored since then: an RFC 3339 time, or how long ago, such as 2h")
	f.StringVar(&s.until, "until", "", "only letters stored before then, as --since")
	completeFrom(cmd, "reason", event.Reasons())
}

// parse returns the selection, without its endpoint. Every error is a usage error.
func (s *selectionFlags) parse(now time.Time) (selection letters.Selection, err error) {
	if selection.Since, err = parseTime(s.since, now); err != nil {
		return selection, usageError{fmt.Errorf("--since %s: %w", s.since, err)}
	}
	if selection.Until, err = parseTime(s.until, now); err != nil {
		return selection, usageError{fmt.Errorf("--until %s: %w", s.until, err)}
	}
	if !selection.Until.IsZero() && !selection.Until.After(selection.Since) {
		return selection, usageError{fmt.Errorf("--until %s: must be after --since %s", s.until, s.since)}
	}
	for _, reason := range s.reasons {
		if !slices.Contains(event.Reasons(), reason) {
			return selection, usageError{fmt.Errorf("--reason %s: must be one of %s", reason, strings.Join(event.Reasons(), ", "))}
		}
		if !slices.Contains(selection.Reasons, reason) {
			selection.Reasons = append(selection.Reasons, reason)
		}
	}
	return selection, nil
}

// againNow is --again without a time.
const againNow = "now"

// parseAgain returns when a repetition was asked for: the zero time is never.
func parseAgain(s string, now time.Time) (time.Time, error) {
	if s == againNow {
		return now.UTC().Truncate(time.Second), nil
	}
	at, err := parseTime(s, now)
	if err != nil {
		return time.Time{}, usageError{fmt.Errorf("--again=%s: %w", s, err)}
	}
	return at, nil
}

// parseTime parses a time, or a duration before now. The result is truncated to
// the second, so that a user can repeat it; "" is the zero time.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		ago, err := time.ParseDuration(s)
		if err != nil {
			return time.Time{}, errors.New("must be a time such as 2026-01-31T08:00:00Z, or how long ago, such as 90m or 2h")
		}
		if ago <= 0 {
			return time.Time{}, errors.New("must be more than 0: it is how long ago")
		}
		at = now.Add(-ago)
	}
	if at.After(now) {
		return time.Time{}, errors.New("is in the future")
	}
	if at.Unix() < 0 {
		return time.Time{}, errors.New("is before 1970, and so is no time of Kafka's")
	}
	return at.UTC().Truncate(time.Second), nil
}
