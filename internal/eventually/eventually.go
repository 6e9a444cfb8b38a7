// Package eventually waits in tests for what happens elsewhere: on a broker, in
// a client's goroutines, in another process. Virtual time doesn't reach that.
package eventually

import (
	"testing"
	"time"
)

// Holds blocks until a condition holds, and fails the test after 20 s.
func Holds(t testing.TB, what string, holds func() bool) {
	t.Helper()
	Within(t, 20*time.Second, what, holds)
}

// Within is Holds with another limit. It looks often at first, for conditions
// that hold at once or never.
func Within(t testing.TB, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for pause := time.Millisecond; !holds(); pause = min(2*pause, 25*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(pause)
	}
}
