package ingest

import "testing"

// A poll takes no more large records than there is room for, but one at least. What
// is small is polled as always, however little room there is.
func TestPollSize(t *testing.T) {
	const mib = 1 << 20
	for name, tt := range map[string]struct {
		left, records, bytes int64
		want                 int
	}{
		"nothing is there":         {64 * mib, 0, 0, pollRecords},
		"all have room":            {64 * mib, 20_000, 64 * mib, pollRecords},
		"some have":                {64 * mib, 100, 100 * mib, 64},
		"of large ones, one":       {mib, 3, 90 * mib, 1},
		"no room":                  {-mib, 3, 90 * mib, 1},
		"little room, small ones":  {1, 8_000, pollBytes, pollRecords},
		"little room, many":        {1, 20_000, 2 * pollBytes, pollRecords},
		"little room, larger ones": {1, 4_000, 2 * pollBytes, 2_000},
	} {
		if got := pollSize(tt.left, tt.records, tt.bytes); got != tt.want {
			t.Errorf("%s: %d records, want %d", name, got, tt.want)
		}
	}
}
