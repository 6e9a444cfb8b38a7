package emulator_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"twinegress/internal/emulator"
)

// class returns the class of an SDK's error that a caller can distinguish.
func class(err error) string {
	var (
		he *azeventhubs.Error
		se *azservicebus.Error
		le *amqp.LinkError
		ae *amqp.Error
	)
	switch {
	case err == nil:
		return "nil"
	case errors.As(err, &he):
		return string(he.Code)
	case errors.As(err, &se):
		return string(se.Code)
	case errors.As(err, &le) && le.RemoteErr != nil:
		return "link " + string(le.RemoteErr.Condition)
	case errors.As(err, &ae):
		return string(ae.Condition)
	case errors.Is(err, context.DeadlineExceeded):
		return "deadline"
	}
	return err.Error()
}

// TestErrorTable holds the emulator to the facts' table of how errors surface, and
// to what it stores. Where the table was measured with MaxRetries: -1 and retrying
// changes the answer, it is the answer with one retry, which is what twinegress
// uses: a deadline is then always one.
func TestErrorTable(t *testing.T) {
	const live = true // on a link that worked before
	for _, c := range []struct {
		name       string
		fault      emulator.Fault
		live       bool
		hub, topic string
		stored     int64 // of the message sent under the fault, repeats included
	}{
		{"CBS 401", emulator.Fault{RejectKey: "both"}, !live, "unauthorized", "unauthorized", 0},
		{"key revoked", emulator.Fault{RejectKey: "both"}, live, "unauthorized", "unauthorized", 0},
		{"attach refused", emulator.Fault{Refuse: "amqp:not-found"}, !live, "amqp:not-found", "amqp:not-found", 0},
		{"refused", emulator.Fault{Refuse: "amqp:not-found"}, live, "connlost or amqp:not-found", "link amqp:not-found or amqp:not-found", 0}, // whether the client saw the detach yet
		{"entity disabled", emulator.Fault{Refuse: "com.microsoft:entity-disabled"}, !live, "com.microsoft:entity-disabled", "com.microsoft:entity-disabled", 0},
		{"server-busy", emulator.Fault{Throttle: 4}, live, "com.microsoft:server-busy", "com.microsoft:server-busy", 0},
		{"timeout", emulator.Fault{Outcome: "rejected", Condition: "com.microsoft:timeout"}, live, "com.microsoft:timeout", "timeout", 0},
		{"rejected", emulator.Fault{Outcome: "rejected", Condition: "amqp:not-allowed"}, live, "amqp:not-allowed", "amqp:not-allowed", 0},
		{"poison", emulator.Fault{Poison: "bad"}, live, "amqp:not-allowed", "amqp:not-allowed", 0},
		{"detach not-found", emulator.Fault{Detach: "amqp:not-found"}, live, "connlost", "link amqp:not-found", 0},
		{"detach unauthorized", emulator.Fault{Detach: "amqp:unauthorized-access"}, live, "unauthorized", "unauthorized", 0},
		{"detach forced", emulator.Fault{Detach: "amqp:link:detach-forced"}, live, "connlost", "connlost", 0},
		{"TCP cut", emulator.Fault{Cut: emulator.CutBefore}, live, "connlost", "connlost", 0},
		{"TCP cut during the settlement", emulator.Fault{Cut: emulator.CutDuring}, live, "connlost", "connlost", 2}, // tried twice
		{"connection forced", emulator.Fault{Cut: emulator.CutClose}, live, "connlost", "connlost", 0},
		{"no credit", emulator.Fault{NoCredit: true}, !live, "deadline", "deadline", 0},
		{"never settled", emulator.Fault{NeverSettle: true}, live, "deadline", "deadline", 1},
		{"silent", emulator.Fault{Silent: true}, live, "deadline", "deadline", 0},
		{"silent, and new clients hang", emulator.Fault{Silent: true, Hang: true}, live, "deadline", "deadline", 0},
		{"released", emulator.Fault{Outcome: emulator.OutcomeReleased}, live, "nil", "nil", 0},
		{"modified", emulator.Fault{Outcome: emulator.OutcomeModified}, live, "nil", "nil", 0},
		{"hang", emulator.Fault{Hang: true}, !live, "deadline", "deadline", 0},
		{"slow", emulator.Fault{Delay: emulator.Duration(30 * time.Millisecond)}, live, "nil", "nil", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, e *emulator.Emulator, entity string, s sender) {
				if c.live {
					if err := s.send(within(t, 5*time.Second), "", "first"); err != nil {
						t.Fatal(err)
					}
				}
				before := e.Stats().Entity(entity).Count
				target := entity
				if c.fault.Hang {
					target = emulator.Namespace
				}
				set(t, e, target, c.fault)
				want := map[string]string{"hub": c.hub, "topic": c.topic}[entity]
				timeout := 5 * time.Second
				if want == "deadline" {
					timeout = 200 * time.Millisecond
				}
				err := s.send(within(t, timeout), "", "a bad thing")
				if got := class(err); !slices.Contains(strings.Split(want, " or "), got) {
					t.Errorf("got %s (%v), want %s", got, err, want)
				}
				if c.fault.Throttle > 0 {
					code := map[string]string{"hub": "50002", "topic": "50009"}[entity]
					if !strings.Contains(err.Error(), code) || !strings.Contains(err.Error(), "Please wait 4 seconds") {
						t.Errorf("text %v", err)
					}
				}
				if n := e.Stats().Entity(entity).Count - before; n != c.stored {
					t.Errorf("%d messages stored, want %d", n, c.stored)
				}
				if err := e.ClearFault(target); err != nil {
					t.Fatal(err)
				}
				// A new client finds the entity well again, whatever became of the old one.
				again := connect(t, entity, e.ConnectionString(emulator.Primary))
				if err := again.send(within(t, 5*time.Second), "", "again"); err != nil {
					t.Errorf("after the fault: %v", err)
				}
			})
		})
	}
}
