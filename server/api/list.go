package api

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"twinegress/endpoints"
)

// selection is the query of a list. It reads the query itself, in Resolve: huma's
// parameters are case-sensitive, and a list is either repeated or has commas.
type selection struct {
	types       []endpoints.Type
	eventTypes  []string
	timeUpdated time.Time
	top, skip   int // top < 0: all
}

// listParameters documents the query.
func listParameters() []*huma.Param {
	zero := 0.0
	number := &huma.Schema{Type: huma.TypeInteger, Minimum: &zero}
	return []*huma.Param{
		{Name: "types", In: "query", Description: "Endpoints of one of these types: with commas, or repeated", Schema: someOf(endpoints.Types())},
		{Name: "eventTypes", In: "query", Description: "Endpoints that take one of these event types: with commas, or repeated", Schema: someOf(endpoints.EventTypes())},
		{
			Name: "timeUpdated", In: "query", Description: "Endpoints that were changed then or later; UTC unless it says otherwise",
			Schema: &huma.Schema{Type: huma.TypeString, Format: "date-time"},
		},
		{Name: "$top", In: "query", Description: "How many at most. The header Link leads to the next ones", Schema: number},
		{Name: "$skip", In: "query", Description: "How many to leave out, in the order of the ids", Schema: number},
	}
}

func someOf[T ~string](known []T) *huma.Schema {
	words := make([]any, len(known))
	for i, k := range known {
		words[i] = string(k)
	}
	return &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString, Enum: words}}
}

// Resolve reads the query, and returns all mistakes; huma calls it.
func (s *selection) Resolve(ctx huma.Context) []error {
	s.top = -1
	var found mistakes
	wrong := found.add
	asked := ctx.URL()
	query, err := url.ParseQuery(asked.RawQuery)
	if err != nil { // it would be ignored otherwise
		wrong("", "has a ; or a %% that is not escaped: write %%3B, and %%25")
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		values := query[name]
		switch strings.ToLower(name) {
		case "types":
			s.types = choices(s.types, "types", values, endpoints.Types(), wrong)
		case "eventtypes":
			s.eventTypes = choices(s.eventTypes, "eventTypes", values, endpoints.EventTypes(), wrong)
		case "timeupdated":
			at, err := parseTime(values[0])
			if err != nil {
				wrong("timeUpdated", "must be a time such as 2026-01-31T08:00:00Z")
			}
			s.timeUpdated = at
		case "$top", "$skip":
			n, err := strconv.Atoi(values[0])
			switch {
			case err != nil || n < 0:
				wrong(strings.ToLower(name), "must be a whole number, 0 or more")
			case strings.EqualFold(name, "$top"):
				s.top = n
			default:
				s.skip = n
			}
		default:
			// If it were ignored, a misspelled filter would list too much.
			wrong(echo(name), "unknown parameter; known are types, eventTypes, timeUpdated, $top, $skip")
		}
	}
	if len(found.first) == 0 {
		return nil
	}
	slices.SortFunc(found.first, func(a, b Detail) int { return strings.Compare(a.Field, b.Field) })
	return []error{failureWith(http.StatusBadRequest, "the query is not valid", found.details())}
}

// choices adds the words of a list in their canonical spelling, each once: every
// endpoint is compared with all of them.
func choices[T ~string](chosen []T, name string, values []string, known []T, wrong func(name, format string, args ...any)) []T {
	for _, value := range values {
		for one := range strings.SplitSeq(value, ",") {
			one = strings.TrimSpace(one)
			i := slices.IndexFunc(known, func(k T) bool { return strings.EqualFold(string(k), one) })
			switch {
			case i >= 0:
				if !slices.Contains(chosen, known[i]) {
					chosen = append(chosen, known[i])
				}
			case one != "":
				allowed := make([]string, len(known))
				for i, k := range known {
					allowed[i] = string(k)
				}
				wrong(name, "unknown value %q; allowed are %s", echo(one), strings.Join(allowed, ", "))
			}
		}
	}
	return chosen
}

// parseTime parses a time as v1's clients write it: .NET's DateTime without a zone is
// UTC, and a plus sign that wasn't escaped is a space.
func parseTime(s string) (time.Time, error) {
	s = strings.ReplaceAll(s, " ", "+")
	at, err := time.Parse(time.RFC3339Nano, s)
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02"} {
		if err == nil {
			break
		}
		at, err = time.Parse(layout, s)
	}
	return at, err
}

// of returns the selected page of a set, ordered by id, as on every copy, and the
// query of the next page.
func (s *selection) of(set []endpoints.Endpoint) (page []endpoints.Endpoint, next string) {
	set = slices.DeleteFunc(set, func(e endpoints.Endpoint) bool { return !s.has(e) })
	slices.SortFunc(set, func(a, b endpoints.Endpoint) int { return strings.Compare(a.ID, b.ID) })
	set = set[min(s.skip, len(set)):]
	switch {
	case s.top < 0 || s.top >= len(set):
		return set, ""
	case s.top == 0:
		return nil, ""
	}
	return set[:s.top], s.next()
}

func (s *selection) has(e endpoints.Endpoint) bool {
	return (len(s.types) == 0 || slices.Contains(s.types, e.Type)) &&
		(len(s.eventTypes) == 0 || slices.ContainsFunc(e.EventTypes, func(t string) bool { return slices.Contains(s.eventTypes, t) })) &&
		!e.LastUpdated.Before(s.timeUpdated)
}

// next returns the query of the next page. It is written anew: the client's may be
// long.
func (s *selection) next() string {
	query := url.Values{"$top": {strconv.Itoa(s.top)}, "$skip": {strconv.Itoa(s.skip + s.top)}}
	for _, t := range s.types {
		query.Add("types", string(t))
	}
	for _, t := range s.eventTypes {
		query.Add("eventTypes", t)
	}
	if !s.timeUpdated.IsZero() {
		query.Set("timeUpdated", s.timeUpdated.Format(time.RFC3339Nano))
	}
	return Base + "/endpoints?" + query.Encode()
}
