package azamqp

import (
	"fmt"
	"testing"

	"twinegress/endpoints"
)

func TestBatchLimits(t *testing.T) {
	var l BatchLimits
	endpoint := endpoints.Endpoint{Path: "topic"}
	for i, step := range []struct{ refused, want uint64 }{
		{0, 0},
		{smallestLimit, 0}, // it was not for the size of the batch
		{4 << 20, 2 << 20},
		{8 << 20, 2 << 20}, // of another lane, from before
		{2 << 20, 1 << 20},
		{smallestLimit + 1, smallestLimit},
	} {
		l.Refused(endpoint, "host", step.refused)
		if got := l.Of(endpoint, "host"); got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
	if got := l.Of(endpoint, "other"); got != 0 {
		t.Errorf("another host's limit is %d", got)
	}
	for i := range 2 * maxLimits {
		l.Refused(endpoints.Endpoint{Path: fmt.Sprint(i)}, "host", 4<<20)
	}
	if len(l.bytes) > maxLimits {
		t.Errorf("%d limits are kept", len(l.bytes))
	}
}
