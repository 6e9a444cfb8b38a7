package azamqp

import (
	"errors"
	"regexp"
	"strconv"
	"time"

	"github.com/Azure/go-amqp"

	"twinegress/internal/event"
	"twinegress/sinks"
)

// waitText is how the services say how long to wait: in the text of
// server-busy errors 50002 (Event Hubs) and 50009 (Service Bus).
var waitText = regexp.MustCompile(`(?i)wait (\d+) second`)

// Classify says what an error of the AMQP library means, whichever SDK it came
// through. defaultWait is how long to wait when a throttling service doesn't say.
//
// The conditions are those of AMQP 1.0 (part 2, transport errors; part 3,
// messaging errors) and of "AMQP 1.0 errors" in the Event Hubs and Service Bus
// documentation. Those that find fault with what was sent do so only as the
// answer to a delivery: a link that ends with one of them (a quota of
// connections, say, is amqp:not-allowed) has nothing against the events.
//
// azservicebus rebuilds most of what it loses, but keeps for good a link or a
// connection that ended with a condition that it calls fatal: a topic that was
// disabled for a minute stays so to it, and after one message that was too
// large every other would be. That shows by the end itself coming out, instead
// of "connection lost". Such a client is given up.
func Classify(err error, defaultWait time.Duration) *sinks.Error {
	reason, wait := reasonOf(err, defaultWait)
	lost := isEnd(err)
	if _, unanswered := errors.AsType[linkError](err); reason == event.Rejected && (lost || unanswered) {
		reason = event.Unreachable
	}
	return &sinks.Error{Reason: reason, Wait: wait, Lost: lost, Err: err}
}

func reasonOf(err error, defaultWait time.Duration) (reason event.Reason, wait time.Duration) {
	e, ok := condition(err)
	if !ok {
		return event.Unreachable, 0
	}
	switch e.Condition {
	case "com.microsoft:server-busy", amqp.ErrCondResourceLimitExceeded:
		wait := defaultWait
		if m := waitText.FindStringSubmatch(e.Description); m != nil {
			if seconds, err := strconv.Atoi(m[1]); err == nil {
				wait = time.Duration(seconds) * time.Second
			}
		}
		return event.Throttled, wait
	case amqp.ErrCondUnauthorizedAccess, "com.microsoft:auth-failed", "com.microsoft:publisher-revoked":
		return event.Unauthorized, 0
	case amqp.ErrCondMessageSizeExceeded:
		return event.TooLarge, 0
	case amqp.ErrCondDecodeError, amqp.ErrCondInvalidField, amqp.ErrCondNotAllowed, amqp.ErrCondNotImplemented,
		amqp.ErrCondPreconditionFailed, "com.microsoft:argument-error", "com.microsoft:argument-out-of-range":
		return event.Rejected, 0
	}
	return event.Unreachable, 0
}

// conditionText is how go-amqp prints an error of its peer.
var conditionText = regexp.MustCompile(`(?s)\*Error\{Condition: ([^,]*), Description: (.*), Info: `)

// condition digs the AMQP error out: of a rejected delivery, a detached link
// or a closed connection.
//
// For conditions that they have no plan for, which are most, the SDKs say
// "connection lost" in an error of their own, which shows the cause in its
// text alone. Should a version of theirs word it otherwise, such errors become
// unreachable; sinktest.RunErrors notices.
func condition(err error) (*amqp.Error, bool) {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return e, true
	}
	if m := conditionText.FindStringSubmatch(err.Error()); m != nil {
		return &amqp.Error{Condition: amqp.ErrCond(m[1]), Description: m[2]}, true
	}
	return nil, false
}

// isEnd tells the end of a link, a session or a connection from the answer to
// a delivery or to an attach.
func isEnd(err error) bool {
	_, link := errors.AsType[*amqp.LinkError](err)
	_, session := errors.AsType[*amqp.SessionError](err)
	_, conn := errors.AsType[*amqp.ConnError](err)
	return link || session || conn
}
