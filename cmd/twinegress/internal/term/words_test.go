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
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
