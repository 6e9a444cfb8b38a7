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
	name  string
	fault emulator.Fault
	whole bool // the fault is the whole namespace's
	cold  bool // it is there before the first connection
	only  faultOn
	kind  sinks.Kind
	wait  time.Duration
	mute  bool // it is known by its silence
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
		{name: "refused", fault: emulator.Fault{Down: true}, whole: true, kind: sinks.Unreachable},
		{name: "refused from the start", fault: emulator.Fault{Down: true}, whole: true, cold: true, kind: sinks.Unreachable},
		{name: "silent from the start", fault: emulator.Fault{Hang: true}, whole: true, cold: true, kind: sinks.Unreachable, mute: true},
		{name: "silent", fault: emulator.Fault{Hang: true, Silent: true}, whole: true, kind: sinks.Unreachable, mute: true},
		{name: "key refused", fault: emulator.Fault{RejectKey: "primary"}, kind: sinks.Unauthorized},
		{name: "key refused from the start", fault: emulator.Fault{RejectKey: "primary"}, cold: true, kind: sinks.Unauthorized},
		{name: "unknown entity", fault: emulator.Fault{Refuse: "amqp:not-found"}, kind: sinks.Unreachable},
		{name: "unknown entity from the start", fault: emulator.Fault{Refuse: "amqp:not-found"}, cold: true, kind: sinks.Unreachable},
		{name: "throttled", fault: emulator.Fault{Throttle: 7}, kind: sinks.Throttled, wait: 7 * time.Second},
		{name: "never settled", fault: emulator.Fault{NeverSettle: true}, kind: sinks.Unreachable, mute: true},
		{name: "cut before", fault: emulator.Fault{Cut: emulator.CutBefore}, kind: sinks.Unreachable},
		{name: "cut during", fault: emulator.Fault{Cut: emulator.CutDuring}, kind: sinks.Unreachable},
		{name: "poison", fault: emulator.Fault{Poison: "event"}, kind: sinks.Rejected},

		{name: "connection forced", fault: emulator.Fault{Cut: emulator.CutClose}, only: amqpOnly, kind: sinks.Unreachable},
		{name: "no credit", fault: emulator.Fault{NoCredit: true}, cold: true, only: amqpOnly, kind: sinks.Unreachable, mute: true},
		{name: "released", fault: emulator.Fault{Outcome: emulator.OutcomeReleased}, only: amqpOnly, kind: sinks.Unreachable},
		{name: "modified", fault: emulator.Fault{Outcome: emulator.OutcomeModified}, only: amqpOnly, kind: sinks.Unreachable},
	}
	for condition, kind := range map[string]sinks.Kind{
		"com.microsoft:server-busy":           sinks.Throttled,
		"amqp:resource-limit-exceeded":        sinks.Throttled,
		"amqp:unauthorized-access":            sinks.Unauthorized,
		"com.microsoft:auth-failed":           sinks.Unauthorized,
		"com.microsoft:publisher-revoked":     sinks.Unauthorized,
		"amqp:link:message-size-exceeded":     sinks.TooLarge,
		"amqp:decode-error":                   sinks.Rejected,
		"amqp:invalid-field":                  sinks.Rejected,
		"amqp:not-allowed":                    sinks.Rejected,
		"amqp:not-implemented":                sinks.Rejected,
		"amqp:precondition-failed":            sinks.Rejected,
		"com.microsoft:argument-error":        sinks.Rejected,
		"com.microsoft:argument-out-of-range": sinks.Rejected,
		"amqp:internal-error":                 sinks.Unreachable,
		"amqp:not-found":                      sinks.Unreachable,
		"amqp:resource-deleted":               sinks.Unreachable,
		"amqp:resource-locked":                sinks.Unreachable,
		"amqp:illegal-state":                  sinks.Unreachable,
		"com.microsoft:entity-disabled":       sinks.Unreachable,
		"com.microsoft:timeout":               sinks.Unreachable,
		"com.microsoft:operation-cancelled":   sinks.Unreachable,
		"com.microsoft:something-new":         sinks.Unreachable,
	} {
		row := failure{name: "rejected " + condition, fault: rejectedWith(condition), only: amqpOnly, kind: kind}
		rows = append(rows, row)
		if kind == sinks.Rejected { // an end of the link is not about an event
			row.kind = sinks.Unreachable
		}
		row.name, row.fault = "detached "+condition, emulator.Fault{Detach: condition}
		rows = append(rows, row)
		row.name, row.fault = "detached for good "+condition, emulator.Fault{Refuse: condition}
		rows = append(rows, row)
		row.name, row.cold = "attach refused "+condition, true
		rows = append(rows, row)
	}
	for status, kind := range map[int]sinks.Kind{
		400: sinks.Rejected, 401: sinks.Unauthorized, 403: sinks.Unreachable, 404: sinks.Unreachable,
		408: sinks.Unreachable, 413: sinks.TooLarge, 429: sinks.Throttled,
		500: sinks.Unreachable, 502: sinks.Unreachable, 503: sinks.Unreachable, 504: sinks.Unreachable,
	} {
		row := failure{name: fmt.Sprint("HTTP ", status), fault: emulator.Fault{Status: status}, only: gridOnly, kind: kind}
		if kind == sinks.Throttled {
			row.wait = 10 * time.Second
		}
		rows = append(rows, row)
		if status != 408 && status < 429 {
			continue
		}
		row.name, row.fault.RetryAfter = row.name+", retry after", 3
		row.kind, row.wait = sinks.Throttled, 3*time.Second
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
			got = &sinks.Error{Kind: sinks.Unreachable, Err: err}
		}
		wait := f.wait
		if f.kind == sinks.Throttled && wait == 0 {
			wait = got.Wait // the service doesn't say: some default
		}
		if n < 1 && (got.Kind == sinks.Rejected || got.Kind == sinks.TooLarge) {
			got.Kind = sinks.Unreachable // as the sender sees it: no event was looked at
		}
		if got.Kind != f.kind && !(f.kind == sinks.TooLarge && n < 1) || got.Wait != wait || got.Kind == sinks.Throttled && wait <= 0 {
			t.Errorf("%s: kind %d, wait %v of %d events, want kind %d, %v: %v", which, got.Kind, got.Wait, n, f.kind, f.wait, err)
		}
	}
}
