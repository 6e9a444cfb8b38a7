package sinks

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

// A connection that says of itself that it is lost gets no second send, nor
// does any that there was before a back-off.
func TestLostConnectionIsReplaced(t *testing.T) {
	tests := map[string]struct {
		answers []error
		want    counts
		opened  int
	}{
		"unreachable":       {[]error{errTest}, counts{"delivered": 2}, 1},
		"unreachable, lost": {[]error{&Error{Reason: event.Unreachable, Lost: true, Err: errTest}}, counts{"delivered": 2}, 2},
		"throttled, lost":   {[]error{&Error{Reason: event.Throttled, Lost: true, Err: errTest}}, counts{"delivered": 2}, 2},
		"too large, lost":   {[]error{&Error{Reason: event.TooLarge, Lost: true, Err: errTest}}, counts{"delivered": 2}, 2},
		"a back-off":        {[]error{errTest, errTest, errTest}, counts{"unreachable": 2}, 1},
		"a probe":           {[]error{errTest, errTest, errTest, nil}, counts{"unreachable": 2, "delivered": 1}, 2},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, hub, defaults)
				h.service.respond = script(test.answers...)
				h.put(0, 2)
				advance(2 * time.Second)
				if len(test.answers) > 3 {
					h.put(0, 1)
					advance(time.Second)
				}
				h.expect(test.want)
				if n := h.service.opened; n != test.opened {
					t.Errorf("%d connections were opened, want %d", n, test.opened)
				}
				if closed := h.closed(); len(closed) != test.opened-1 {
					t.Errorf("closed %v of %d", closed, test.opened)
				}
				h.finish()
			})
		})
	}
}

// A key that was refused is tried on a new connection, if it is the only one too.
func TestOnlyKeyRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := hub
		one.SecondaryConnectionString = ""
		h := newHarness(t, one, defaults)
		h.service.respond = script(refusal(event.Unauthorized, 0))
		h.put(0, 1)
		advance(2 * time.Second)
		if closed := h.closed(); !slices.Equal(closed, []string{"primary"}) {
			t.Errorf("closed %v", closed)
		}
		h.put(0, 1)
		advance(time.Second)
		h.expect(counts{"unauthorized": 1, "delivered": 1})
		h.finish()
	})
}

// The last try often only runs out of time: the one before it says why.
func TestTimeOutNamesTheCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		options := defaults
		options.Timeout = 350 * ms
		h := newHarness(t, hub, options)
		h.service.respond = hangingAfter(2)
		h.put(0, 1)
		advance(time.Second)
		h.expect(counts{"unreachable": 1})
		if got, want := h.snapshot().LastError, "unreachable: context deadline exceeded, after test"; got != want {
			t.Errorf("last error is %q, want %q", got, want)
		}
		h.finish()
	})
}

// An endpoint that takes nothing at all is noticed, once.
func TestNothingButRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, hub, defaults)
		respond := refusal(event.Rejected, 0)
		h.service.respond = always(respond)
		h.put(0, refusedInARow-1)
		advance(time.Second)
		if n := h.logs.Len(); n != 0 {
			t.Errorf("%d warnings after %d refusals", n, refusedInARow-1)
		}
		h.put(0, refusedInARow)
		advance(time.Second)
		if n := h.logs.Len(); n != 1 {
			t.Errorf("%d warnings, want one", n)
		}
		h.expect(counts{"rejected": 2*refusedInARow - 1})
		if s := h.snapshot().State; s != StateReady {
			t.Errorf("state is %s", s)
		}
		h.finish()
	})
}

// always answers each Send so.
func always(err error) func(context.Context, string, []*event.Event) (int, error) {
	return func(_ context.Context, _ string, events []*event.Event) (int, error) { return len(events), err }
}

// hangingAfter fails so many times, and then leaves each Send without an answer.
func hangingAfter(n int) func(context.Context, string, []*event.Event) (int, error) {
	return func(ctx context.Context, _ string, events []*event.Event) (int, error) {
		if n--; n >= 0 {
			return len(events), errTest
		}
		<-ctx.Done()
		return len(events), ctx.Err()
	}
}
