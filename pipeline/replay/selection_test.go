package replay

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"twinegress/internal/event"
	"twinegress/pipeline/letters"
)

// Each selection is a group of its own.
func TestGroup(t *testing.T) {
	at := time.Date(2026, 5, 1, 10, 0, 0, 0, time.FixedZone("", 7200))
	const id = "568fd394-380b-46fa-925a-ebb96f658cce"
	for want, got := range map[string]string{
		"twinegress-replay":                                                 Group("twinegress", letters.Selection{}, time.Time{}),
		"twinegress-replay-" + id:                                           Group("twinegress", letters.Selection{Endpoint: id}, time.Time{}),
		"twinegress-replay-" + id + "-since-20260501T080000Z":               Group("twinegress", letters.Selection{Endpoint: id, Since: at}, time.Time{}),
		"twinegress-replay-since-20260501T080000Z":                          Group("twinegress", letters.Selection{Since: at}, time.Time{}),
		"twinegress-replay-until-20260501T080000Z":                          Group("twinegress", letters.Selection{Until: at}, time.Time{}),
		"twinegress-replay-reason-backoff+too_large-again-20260501T080000Z": Group("twinegress", letters.Selection{Reasons: []string{"too_large", "backoff", "backoff"}}, at),
		"twinegress-replay-since-20260501T080000Z-until-20260501T090000Z":   Group("twinegress", letters.Selection{Since: at, Until: at.Add(time.Hour)}, time.Time{}),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for _, other := range []string{"twinegress", "twinegress-2-replay", "twinegress-replay2", "twinegress-replay-copy", "twinegress-replay-since-20269901T080000Z"} {
		if _, _, ok := parseGroup("twinegress", other); ok {
			t.Errorf("%s is taken for a replay's group", other)
		}
	}
}

// A group's name has all of its selection.
func TestGroupRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := rapid.Custom(func(t *rapid.T) time.Time {
			if rapid.Bool().Draw(t, "none") {
				return time.Time{}
			}
			return time.Unix(rapid.Int64Range(0, 4e9).Draw(t, "second"), 0).UTC()
		})
		s := letters.Selection{
			Endpoint: rapid.StringMatching(`([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?`).Draw(t, "endpoint"),
			Reasons:  rapid.SliceOfNDistinct(rapid.SampledFrom(event.Reasons()), 0, 4, rapid.ID).Draw(t, "reasons"),
			Since:    at.Draw(t, "since"), Until: at.Draw(t, "until"),
		}
		again, group := at.Draw(t, "again"), rapid.StringMatching(`[a-z-]{1,20}`).Draw(t, "group")
		name := Group(group, s, again)
		got, gotAgain, ok := parseGroup(group, name)
		if !ok || Group(group, got, gotAgain) != name || got.Endpoint != s.Endpoint || len(got.Reasons) != len(s.Reasons) ||
			!got.Since.Equal(s.Since) || !got.Until.Equal(s.Until) || !gotAgain.Equal(again) {
			t.Fatalf("%s is read as %+v, %s", name, got, gotAgain)
		}
	})
}

func TestOverlap(t *testing.T) {
	of := func(endpoint string, reasons ...string) letters.Selection {
		return letters.Selection{Endpoint: endpoint, Reasons: reasons}
	}
	for _, tt := range []struct {
		a, b letters.Selection
		want bool
	}{
		{of(""), of(""), true},
		{of("a"), of(""), true},
		{of("a"), of("a"), true},
		{of("a"), of("b"), false},
		{of("a", "backoff"), of("a"), true},
		{of("", "backoff"), of("", "rejected"), false},
		{of("", "backoff", "rejected"), of("", "rejected"), true},
	} {
		if got := fmt.Sprint(overlap(tt.a, tt.b), overlap(tt.b, tt.a)); got != fmt.Sprint(tt.want, tt.want) {
			t.Errorf("%v and %v: %s", tt.a, tt.b, got)
		}
	}
}
