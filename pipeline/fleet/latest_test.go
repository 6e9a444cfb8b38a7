package fleet

import (
	"testing"
	"testing/synctest"
	"time"
)

// However often reports are asked for, making them takes a fifth of a core.
func TestReportsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l latest
		made := 0
		slow := func() *Report {
			made++
			time.Sleep(time.Second)
			return new(Report)
		}
		for begun := time.Now(); time.Since(begun) < 50*time.Second; time.Sleep(10 * time.Millisecond) {
			l.of(slow)
		}
		if made != 10 {
			t.Errorf("%d reports of 1 s in 50 s", made)
		}
		time.Sleep(time.Minute)
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.report != nil {
			t.Error("the last one is kept")
		}
	})
}
