package gctuner

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

const mib = 1 << 20

func TestLimit(t *testing.T) {
	cases := map[string]struct {
		live, scanned uint64
		want          int64
	}{
		"nothing":                 {0, 0, 192 * mib},
		"less than the floor":     {80 * mib, 80 * mib, 192 * mib},
		"more":                    {100 << 20, 100 << 20, (170 + 32) * mib},
		"from where half will do": {160 << 20, 160 << 20, (160 + 80 + 32) * mib},
		"much more":               {1000 << 20, 1000 << 20, (1350 + 32) * mib},
		"mostly bytes":            {200 << 20, 20 << 20, (200 + 32 + 32) * mib},
		"half of it bytes":        {200 << 20, 100 << 20, (200 + 70 + 32) * mib},
		"with what is dead":       {150 << 20, 1000 << 20, (150 + 80 + 32) * mib},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			got := limitFor(test.live, test.scanned, 192*mib, 70)
			if got > test.want || got < test.want-mib {
				t.Errorf("%d MiB, want %d MiB", got/mib, test.want/mib)
			}
		})
	}
}

var kept []byte

// awaitLimit runs the collector until the limit is between the two.
func awaitLimit(t *testing.T, from, to int64) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); ; {
		runtime.GC()
		limit := debug.SetMemoryLimit(-1)
		if from <= limit && limit <= to {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the limit is %d MiB, and not between %d and %d", limit/mib, from/mib, to/mib)
		}
		runtime.Gosched() // the cleanup that sets it runs on a goroutine of the runtime
	}
}

func TestTheLimitFollowsWhatIsAlive(t *testing.T) {
	t.Setenv("GOGC", "")
	defer Start(40*mib, 50)()
	awaitLimit(t, 40*mib, 44*mib)
	kept = make([]byte, 64*mib)
	awaitLimit(t, (96+32)*mib, (106+32)*mib)
	runtime.KeepAlive(kept)
	kept = nil
	awaitLimit(t, 40*mib, 44*mib)
}

func TestStopPutsBack(t *testing.T) {
	t.Setenv("GOGC", "")
	percentBefore, limitBefore := debug.SetGCPercent(77), debug.SetMemoryLimit(100*mib)
	defer func() {
		debug.SetGCPercent(percentBefore)
		debug.SetMemoryLimit(limitBefore)
	}()
	stop := Start(1<<30, 50)
	if got := debug.SetMemoryLimit(-1); got != 100*mib {
		t.Errorf("the limit is %d MiB, past the one that was set before", got/mib)
	}
	stop()
	runtime.GC()
	if p, l := debug.SetGCPercent(77), debug.SetMemoryLimit(-1); p != 77 || l != 100*mib {
		t.Errorf("left are %d %% and %d MiB", p, l/mib)
	}
}

func TestGOGCWins(t *testing.T) {
	before := debug.SetGCPercent(123)
	defer debug.SetGCPercent(before)
	t.Setenv("GOGC", "123")
	defer Start(mib, 50)()
	if p, l := debug.SetGCPercent(123), debug.SetMemoryLimit(-1); p != 123 || l != math.MaxInt64 {
		t.Errorf("set are %d %% and %d MiB", p, l/mib)
	}
}
