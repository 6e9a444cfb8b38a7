package sinktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// failure is a row of the table of errors: how a fault comes out of Send.
type failure struct {
	name   string
	fault  emulator.Fault
	whole  bool // the fault is the whole namespace's
	cold   bool // it is there before the first connection
	only   faultOn
	reason event.Reason
	wait   time.Duration
	mute   bool // it is known by its silence
}

// faultOn says which services a row is about.
type faultOn uint8

const (
	amqpOnly faultOn = 1 + iota
	gridOnly
)

func (o faultOn) includes(s Service) bool {
	return o == 0 || (o == gridOnly) == s.isGrid()
}

func rejectedWith(condition string) emulator.Fault {
	return emulator.Fault{Outcome: emulator.OutcomeRejected, Condition: condition}
}

// failures are the rows. A condition means one thing as the answer to a
// delivery and may mean another as the end of a link: the first is about what
// was sent, the second about the entity.
func failures() []failure {
	rows := []failure{
		{name: "refused", fault: emulator.Fault{Down: true}, whole: true, reason: event.Unreachable},
		{name: "refused from the start", fault: emulator.Fault{Down: true}, whole: true, cold: true, reason: event.Unreachable},
		{name: "silent from the start", fault: emulator.Fault{Hang: true}, whole: true, cold: true, reason: event.Unreachable, mute: true},
		{name: "silent", fault: emulator.Fault{Hang: true, Silent: true}, whole: true, reason: event.Unreachable, mute: true},
		{name: "key refused", fault: emulator.Fault{RejectKey: "primary"}, reason: event.Unauthorized},
		{name: "key refused from the start", fault: emulator.Fault{RejectKey: "primary"}, cold: true, reason: event.Unauthorized},
		{name: "unknown entity", fault: emulator.Fault{Refuse: "amqp:not-found"}, reason: event.Unreachable},
		{name: "unknown entity from the start", fault: emulator.Fault{Refuse: "amqp:not-found"}, cold: true, reason: event.Unreachable},
		{name: "throttled", fault: emulator.Fault{Throttle: 7}, reason: event.Throttled, wait: 7 * time.Second},
		{name: "never settled", fault: emulator.Fault{NeverSettle: true}, reason: event.Unreachable, mute: true},
		{name: "cut before", fault: emulator.Fault{Cut: emulator.CutBefore}, reason: event.Unreachable},
		{name: "cut during", fault: emulator.Fault{Cut: emulator.CutDuring}, reason: event.Unreachable},
		{name: "poison", fault: emulator.Fault{Poison: "event"}, reason: event.Rejected},

		{name: "connection forced", fault: emulator.Fault{Cut: emulator.CutClose}, only: amqpOnly, reason: event.Unreachable},
		{name: "no credit", fault: emulator.Fault{NoCredit: true}, cold: true, only: amqpOnly, reason: event.Unreachable, mute: true},
		{name: "released", fault: emulator.Fault{Outcome: emulator.OutcomeReleased}, only: amqpOnly, reason: event.Unreachable},
		{name: "modified", fault: emulator.Fault{Outcome: emulator.OutcomeModified}, only: amqpOnly, reason: event.Unreachable},
	}
	for condition, reason := range map[string]event.Reason{
		"com.microsoft:server-busy":           event.Throttled,
		"amqp:resource-limit-exceeded":        event.Throttled,
		"amqp:unauthorized-access":            event.Unauthorized,
		"com.microsoft:auth-failed":           event.Unauthorized,
		"com.microsoft:publisher-revoked":     event.Unauthorized,
		"amqp:link:message-size-exceeded":     event.TooLarge,
		"amqp:decode-error":                   event.Rejected,
		"amqp:invalid-field":                  event.Rejected,
		"amqp:not-allowed":                    event.Rejected,
		"amqp:not-implemented":                event.Rejected,
		"amqp:precondition-failed":            event.Rejected,
		"com.microsoft:argument-error":        event.Rejected,
		"com.microsoft:argument-out-of-range": event.Rejected,
		"amqp:internal-error":                 event.Unreachable,
		"amqp:not-found":                      event.Unreachable,
		"amqp:resource-deleted":               event.Unreachable,
		"amqp:resource-locked":                event.Unreachable,
		"amqp:illegal-state":                  event.Unreachable,
		"com.microsoft:entity-disabled":       event.Unreachable,
		"com.microsoft:timeout":               event.Unreachable,
		"com.microsoft:operation-cancelled":   event.Unreachable,
		"com.microsoft:something-new":         event.Unreachable,
	} {
		row := failure{name: "rejected " + condition, fault: rejectedWith(condition), only: amqpOnly, reason: reason}
		rows = append(rows, row)
		if reason == event.Rejected { // an end of the link is not about an event
			row.reason = event.Unreachable
		}
		row.name, row.fault = "detached "+condition, emulator.Fault{Detach: condition}
		rows = append(rows, row)
		row.name, row.fault = "detached for good "+condition, emulator.Fault{Refuse: condition}
		rows = append(rows, row)
		row.name, row.cold = "attach refused "+condition, true
		rows = append(rows, row)
	}
	for status, reason := range map[int]event.Reason{
		400: event.Rejected, 401: event.Unauthorized, 403: event.Unreachable, 404: event.Unreachable,
		408: event.Unreachable, 413: event.TooLarge, 429: event.Throttled,
		500: event.Unreachable, 502: event.Unreachable, 503: event.Unreachable, 504: event.Unreachable,
	} {
		row := failure{name: fmt.Sprint("HTTP ", status), fault: emulator.Fault{Status: status}, only: gridOnly, reason: reason}
		if reason == event.Throttled {
			row.wait = 10 * time.Second
		}
		rows = append(rows, row)
		if status != 408 && status < 429 {
			continue
		}
		row.name, row.fault.RetryAfter = row.name+", retry after", 3
		row.reason, row.wait = event.Throttled, 3*time.Second
		rows = append(rows, row)
	}
	return rows
}

// RunErrors holds what Send says to the table of errors.
func RunErrors(t *testing.T, s Service) {
	var rows []failure
	var names []string
	for _, row := range failures() {
		if row.only.includes(s) {
			rows, names = append(rows, row), append(names, strings.ReplaceAll(row.name, "/", " "))
		}
	}
	together(t, names, func(t *testing.T, i int) { rows[i].run(t, s) })
}

func (f failure) run(t *testing.T, s Service) {
	e := s.start(t, emulator.KeyPair{}, nil)
	sink, err := s.Opener(rootsOf(e), nil)(s.endpoint(e), sinks.Primary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = sink.Close(ctx) // faults keep some from closing in order
	})
	chunk := event.NewChunk("twins", 1, 3, 0, func(*event.Chunk) {})
	for i := range 3 {
		chunk.Add(int64(i), 0, 0, nil, body(1, int64(i), "event"))
	}
	typed(chunk)
	batch := []*event.Event{&chunk.Events[0], &chunk.Events[1], &chunk.Events[2]}
	send := func(within time.Duration) (int, error) {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		return sink.Send(ctx, batch)
	}
	if !f.cold {
		if n, err := send(patience); n != 3 || err != nil {
			t.Fatalf("a healthy service: %d, %v", n, err)
		}
	}
	name := entity
	if f.whole && !s.isGrid() {
		name = emulator.Namespace
	}
	if err := e.SetFault(name, f.fault); err != nil {
		t.Fatal(err)
	}
	within := patience
	if f.mute {
		within = 200 * time.Millisecond
	}
	for _, which := range []string{"first", "second"} {
		n, err := send(within)
		if err == nil {
			t.Errorf("%s: no error", which)
			continue
		}
		got, ok := errors.AsType[*sinks.Error](err)
		if !ok {
			got = &sinks.Error{Reason: event.Unreachable, Err: err}
		}
		wait := f.wait
		if f.reason == event.Throttled && wait == 0 {
			wait = got.Wait // the service doesn't say: some default
		}
		if n < 1 && (got.Reason == event.Rejected || got.Reason == event.TooLarge) {
			got.Reason = event.Unreachable // as the sender sees it: no event was looked at
		}
		if got.Reason != f.reason && !(f.reason == event.TooLarge && n < 1) || got.Wait != wait || got.Reason == event.Throttled && wait <= 0 {
			t.Errorf("%s: %s, wait %v of %d events, want %s, %v: %v", which, got.Reason, got.Wait, n, f.reason, f.wait, err)
		}
	}
}
