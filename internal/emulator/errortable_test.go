package emulator_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"twinegress/internal/emulator"
)

// class names what a caller can tell of an SDK's error.
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

// TestErrorTable holds the emulator to the facts' table of how errors surface. Where
// the table was measured with MaxRetries: -1 and retrying changes the answer, it is the
// answer with one retry, which is what twinegress uses: a deadline is then always one.
func TestErrorTable(t *testing.T) {
	for _, c := range []struct {
		name       string
		fault      emulator.Fault
		live       bool // on a link that worked before
		hub, topic string
	}{
		{"CBS 401", emulator.Fault{RejectKey: "both"}, false, "unauthorized", "unauthorized"},
		{"key revoked", emulator.Fault{RejectKey: "both"}, true, "unauthorized", "unauthorized"},
		{"attach refused", emulator.Fault{Refuse: "amqp:not-found"}, false, "amqp:not-found", "amqp:not-found"},
		{"entity disabled", emulator.Fault{Refuse: "com.microsoft:entity-disabled"}, false, "com.microsoft:entity-disabled", "com.microsoft:entity-disabled"},
		{"server-busy", emulator.Fault{Throttle: 2}, true, "com.microsoft:server-busy", "com.microsoft:server-busy"},
		{"timeout", emulator.Fault{Outcome: "rejected", Condition: "com.microsoft:timeout"}, true, "com.microsoft:timeout", "timeout"},
		{"detach not-found", emulator.Fault{Detach: "amqp:not-found"}, true, "connlost", "link amqp:not-found"},
		{"detach unauthorized", emulator.Fault{Detach: "amqp:unauthorized-access"}, true, "unauthorized", "unauthorized"},
		{"detach forced", emulator.Fault{Detach: "amqp:link:detach-forced"}, true, "connlost", "connlost"},
		{"TCP cut", emulator.Fault{Cut: emulator.CutBefore}, true, "connlost", "connlost"},
		{"connection forced", emulator.Fault{Cut: emulator.CutClose}, true, "connlost", "connlost"},
		{"no credit", emulator.Fault{NoCredit: true}, false, "deadline", "deadline"},
		{"never settled", emulator.Fault{NeverSettle: true}, true, "deadline", "deadline"},
		{"silent", emulator.Fault{Silent: true}, true, "deadline", "deadline"},
		{"released", emulator.Fault{Outcome: emulator.OutcomeReleased}, true, "nil", "nil"},
		{"modified", emulator.Fault{Outcome: emulator.OutcomeModified}, true, "nil", "nil"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, e *emulator.Emulator, entity string, s sender) {
				if c.live {
					if err := s.send(within(t, 5*time.Second), "", "first"); err != nil {
						t.Fatal(err)
					}
				}
				set(t, e, entity, c.fault)
				want := map[string]string{"hub": c.hub, "topic": c.topic}[entity]
				patience := 5 * time.Second
				if want == "deadline" {
					patience = 200 * time.Millisecond
				}
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				err := s.send(ctx, "", "x")
				if got := class(err); got != want {
					t.Errorf("got %s (%v), want %s", got, err, want)
				}
			})
		})
	}
}
