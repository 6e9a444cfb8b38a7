package term

import (
	"testing"
	"time"
)

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		Grouped(0):                       "0",
		Grouped(999):                     "999",
		Grouped(1000):                    "1,000",
		Grouped(uint64(1234567)):         "1,234,567",
		Grouped(-123456):                 "-123,456",
		Rate(0.25):                       "0.2",
		Rate(1999.6):                     "2,000",
		Clock(65 * time.Second):          "1:05",
		Clock(7384 * time.Second):        "2:03:04",
		Latency(0):                       "-",
		Latency(2 * time.Microsecond):    "<1ms",
		Latency(24 * time.Millisecond):   "24ms",
		Latency(1200 * time.Millisecond): "1.2s",
		Latency(2 * time.Minute):         "2min",
		Count(0, "copy", "copies"):       "no copies",
		Count(1, "copy", "copies"):       "1 copy",
		Count(1200, "copy", "copies"):    "1,200 copies",
		Short(9999):                      "9,999",
		Short(10_000):                    "10.0k",
		Short(99_949):                    "99.9k",
		Short(99_950):                    "100k",
		Short(999_499):                   "999k",
		Short(999_500):                   "1.0M",
		Short(uint64(1) << 63):           "9.2E",
		Ago(-time.Second):                "0s",
		Ago(59 * time.Second):            "59s",
		Ago(90 * time.Minute):            "1h",
		Ago(47 * time.Hour):              "47h",
		Ago(49 * time.Hour):              "2d",
		Cut("building", 8):               "building",
		Cut("buildings", 8):              "buildin…",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
