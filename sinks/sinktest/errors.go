package sinktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks"
)

// failure is a row of the table of errors: a fault and the error of Send.
type failure struct {
	name   string
	fault  emulator.Fault
	whole  bool // the fault is the whole namespace's
	cold   bool // it is there before the first connection
	only   protocol
	reason event.Reason
	wait   time.Duration
	mute   bool // it shows as a time-out only

	answer bool // it is the answer to a batch
	change func(*endpoints.Endpoint)
}

func rejectedWith(condition string) emulator.Fault {
	return emulator.Fault{Outcome: emulator.OutcomeRejected, Condition: condition}
}

// failures returns the rows. A condition means one thing as the answer to a
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
		{name: "throttled", fault: emulator.Fault{Throttle: 7}, answer: true, reason: event.Throttled, wait: 7 * time.Second},
		{name: "never settled", fault: emulator.Fault{NeverSettle: true}, reason: event.Unreachable, mute: true},
		{name: "cut before", fault: emulator.Fault{Cut: emulator.CutBefore}, reason: event.Unreachable},
		{name: "cut during", fault: emulator.Fault{Cut: emulator.CutDuring}, reason: event.Unreachable},
		{name: "poison", fault: emulator.Fault{Poison: "event"}, answer: true, reason: event.Rejected},

		{name: "another key", change: func(e *endpoints.Endpoint) {
			e.ConnectionString = strings.Replace(e.ConnectionString, "SharedAccessKey=", "SharedAccessKey=AAAA", 1)
		}, cold: true, only: amqp, reason: event.Unauthorized},
		{name: "another entity", change: func(e *endpoints.Endpoint) { e.Path = "missing" }, cold: true, only: amqp, reason: event.Unreachable},
		{name: "connection forced", fault: emulator.Fault{Cut: emulator.CutClose}, only: amqp, reason: event.Unreachable},
		{name: "no credit", fault: emulator.Fault{NoCredit: true}, cold: true, only: amqp, reason: event.Unreachable, mute: true},
		{name: "released", fault: emulator.Fault{Outcome: emulator.OutcomeReleased}, only: amqp, answer: true, reason: event.Unreachable},
		{name: "modified", fault: emulator.Fault{Outcome: emulator.OutcomeModified}, only: amqp, answer: true, reason: event.Unreachable},
	}
	for reason, conditions := range map[event.Reason][]string{
		event.Throttled:    {"com.microsoft:server-busy", "amqp:resource-limit-exceeded"},
		event.Unauthorized: {"amqp:unauthorized-access", "com.microsoft:auth-failed", "com.microsoft:publisher-revoked"},
		event.TooLarge:     {"amqp:link:message-size-exceeded"},
		event.Rejected: {
			"amqp:decode-error", "amqp:invalid-field", "amqp:not-allowed", "amqp:not-implemented", "amqp:precondition-failed",
			"com.microsoft:argument-error", "com.microsoft:argument-out-of-range",
		},
		event.Unreachable: {
			"amqp:internal-error", "amqp:not-found", "amqp:resource-deleted", "amqp:resource-locked", "amqp:illegal-state",
			"com.microsoft:entity-disabled", "com.microsoft:timeout", "com.microsoft:operation-cancelled", "com.microsoft:something-new",
		},
	} {
		for _, condition := range conditions {
			rows = append(rows, conditionFailures(condition, reason)...)
		}
	}
	for status, reason := range map[int]event.Reason{
		400: event.Rejected, 401: event.Unauthorized, 403: event.Unreachable, 404: event.Unreachable,
		408: event.Unreachable, 413: event.TooLarge, 429: event.Throttled,
		500: event.Unreachable, 502: event.Unreachable, 503: event.Unreachable, 504: event.Unreachable,
	} {
		row := failure{name: fmt.Sprint("HTTP ", status), fault: emulator.Fault{Status: status}, only: http, answer: true, reason: reason}
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

// conditionFailures returns a row for each way to send an AMQP condition.
func conditionFailures(condition string, reason event.Reason) []failure {
	end := reason
	if reason == event.Rejected { // an end of the link is not about an event
		end = event.Unreachable
	}
	detach, refuse := emulator.Fault{Detach: condition}, emulator.Fault{Refuse: condition}
	return []failure{
		{name: "rejected " + condition, only: amqp, fault: rejectedWith(condition), answer: true, reason: reason},
		{name: "detached " + condition, only: amqp, fault: detach, reason: end},
		{name: "detached for good " + condition, only: amqp, fault: refuse, reason: end},
		{name: "attach refused " + condition, only: amqp, fault: refuse, cold: true, reason: end},
	}
}

// RunErrors compares the errors of Send with the table.
func RunErrors(t *testing.T, s Service) {
	var tests []subtest
	for _, f := range failures() {
		if s.speaks(f.only) {
			tests = append(tests, subtest{strings.ReplaceAll(f.name, "/", " "), func(t *testing.T) { f.run(t, s) }})
		}
	}
	runParallel(t, tests)
}

func (f failure) run(t *testing.T, s Service) {
	service := s.start(t, emulator.KeyPair{}, nil)
	endpoint := s.endpoint(service)
	if f.change != nil {
		f.change(&endpoint)
	}
	sink, err := s.Opener(dialerTo(service), nil)(endpoint, sinks.Primary)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		_ = sink.Close(ctx) // faults keep some from closing in order
	})
	chunk := newChunk(1, 0, []string{"event", "event", "event"}, func(*event.Chunk) {})
	batch := []*event.Event{&chunk.Events[0], &chunk.Events[1], &chunk.Events[2]}
	send := func(timeout time.Duration) (int, error) {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		begun := time.Now()
		n, err := sink.Send(ctx, batch)
		if took := time.Since(begun); took > timeout+5*time.Second {
			t.Errorf("Send returned after %v, with a time-out of %v", took, timeout)
		}
		return n, err
	}
	if !f.cold {
		if n, err := send(waitTimeout); n != 3 || err != nil {
			t.Fatalf("a healthy service: %d, %v", n, err)
		}
	}
	name := entity
	if f.whole && !s.isGrid() {
		name = emulator.Namespace
	}
	if err := service.SetFault(name, f.fault); err != nil {
		t.Fatal(err)
	}
	timeout := waitTimeout
	if f.mute {
		timeout = 200 * time.Millisecond
	}
	for _, which := range []string{"first", "second"} {
		n, err := send(timeout)
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
		if n != 3 && (n != 0 || f.answer) {
			t.Errorf("%s: %d events, want all, or none of a batch that was not sent: %v", which, n, err)
		}
	}
}
