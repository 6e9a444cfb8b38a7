package kafka

import (
	"context"
	"time"
)

// Pause blocks for a time before brokers are asked again, and reports whether ctx is
// still alive.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
