package replay

import (
	"regexp"
	"slices"
	"strings"
	"time"

	"twinegress/pipeline/letters"
)

// groupTime is how a time is written in a group's name.
const groupTime = "20060102T150405Z"

// Group is the consumer group of a selection of letters. Each selection has
// its own, since a group is one position: the letters that a narrow selection
// skips must not be skipped for the others. So has each repetition of it: again is
// when that was asked for, or zero.
func Group(ingestGroup string, s letters.Selection, again time.Time) string {
	var b strings.Builder
	b.WriteString(ingestGroup + groupSuffix)
	if s.Endpoint != "" {
		b.WriteString("-" + s.Endpoint)
	}
	if len(s.Reasons) > 0 {
		reasons := slices.Sorted(slices.Values(s.Reasons))
		b.WriteString("-reason-" + strings.Join(slices.Compact(reasons), "+"))
	}
	for _, part := range []struct {
		name string
		at   time.Time
	}{{"since", s.Since}, {"until", s.Until}, {"again", again}} {
		if !part.at.IsZero() {
			b.WriteString("-" + part.name + "-" + part.at.UTC().Format(groupTime))
		}
	}
	return b.String()
}

const groupSuffix = "-replay"

var groupParts = regexp.MustCompile(`^(?:-([0-9a-f-]{36}))?(?:-reason-([a-z_+]+))?(?:-since-(\d{8}T\d{6}Z))?(?:-until-(\d{8}T\d{6}Z))?(?:-again-(\d{8}T\d{6}Z))?$`)

// parseGroup returns the selection that a group is of, or false if it is no group
// of a replay for that ingest group.
func parseGroup(ingestGroup, group string) (s letters.Selection, again time.Time, ok bool) {
	rest, ok := strings.CutPrefix(group, ingestGroup+groupSuffix)
	if !ok {
		return s, again, false
	}
	parts := groupParts.FindStringSubmatch(rest)
	if parts == nil {
		return s, again, false
	}
	s.Endpoint = parts[1]
	if parts[2] != "" {
		s.Reasons = strings.Split(parts[2], "+")
	}
	for i, at := range []*time.Time{&s.Since, &s.Until, &again} {
		if text := parts[3+i]; text != "" {
			var err error
			if *at, err = time.Parse(groupTime, text); err != nil {
				return s, again, false
			}
		}
	}
	return s, again, true
}

// overlap reports whether two selections may have a letter in common. When letters
// were stored is told by their offsets.
func overlap(a, b letters.Selection) bool {
	return (a.Endpoint == "" || b.Endpoint == "" || a.Endpoint == b.Endpoint) &&
		(len(a.Reasons) == 0 || len(b.Reasons) == 0 ||
			slices.ContainsFunc(a.Reasons, func(r string) bool { return slices.Contains(b.Reasons, r) }))
}
