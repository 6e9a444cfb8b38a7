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

// maxWait is the longest wait that is taken from a service's words. It is longer
// than any that is kept, and short enough to be added up.
const maxWait = 24 * time.Hour

// waitText matches the time to wait in the text of the services' server-busy
// errors: 50002 (Event Hubs) and 50009 (Service Bus). They have no field for it.
// A peer that writes other words there decides how long its own endpoint waits,
// up to the limit of waits, and for nobody else.
var waitText = regexp.MustCompile(`(?i)wait (\d+) second`)

// Classify returns an error of the AMQP library, of either SDK, with its reason.
// defaultWait is how long to wait when a throttling service doesn't say.
//
// The conditions are those of AMQP 1.0 (part 2, transport errors; part 3,
// messaging errors) and of "AMQP 1.0 errors" in the Event Hubs and Service Bus
// documentation. Those that mean a bad event mean it only as the answer to a
// delivery: a link may end with one of them for another cause (a quota of
// connections is amqp:not-allowed).
//
// azservicebus rebuilds most of what it loses, but never a link or a connection
// that ended with a condition that it calls fatal: it would report a topic that
// was disabled for a minute as disabled for good, and after one message that was
// too large every other as too large. Its error is then the end of the link
// itself, instead of "connection lost". Such a client is Lost.
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
		if m := waitText.FindStringSubmatch(e.Description); m != nil {
			// Of digits alone: an error means that there are too many, and comes
			// with the largest number.
			seconds, _ := strconv.ParseUint(m[1], 10, 64)
			return event.Throttled, time.Duration(min(seconds, uint64(maxWait/time.Second))) * time.Second
		}
		return event.Throttled, defaultWait
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

// conditionText matches an error of the peer as go-amqp prints it.
var conditionText = regexp.MustCompile(`(?s)\*Error\{Condition: ([^,]*), Description: (.*), Info: `)

// condition returns the AMQP error in err: of a rejected delivery, a detached
// link or a closed connection.
//
// For conditions that they don't handle, which are most, the SDKs return
// "connection lost" in an error of their own, which has the cause in its text
// alone. Where a version of theirs words it otherwise, such errors become
// unreachable, and sinktest.RunErrors fails. A peer can write such words into its
// own error, and so have it taken for another of its own: it could send that one.
func condition(err error) (*amqp.Error, bool) {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return e, true
	}
	if m := conditionText.FindStringSubmatch(err.Error()); m != nil {
		return &amqp.Error{Condition: amqp.ErrCond(m[1]), Description: m[2]}, true
	}
	return nil, false
}

// isEnd reports whether err is the end of a link, a session or a connection,
// and not the answer to a delivery or to an attach.
func isEnd(err error) bool {
	_, link := errors.AsType[*amqp.LinkError](err)
	_, session := errors.AsType[*amqp.SessionError](err)
	_, conn := errors.AsType[*amqp.ConnError](err)
	return link || session || conn
}
