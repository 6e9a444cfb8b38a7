package azamqp

import (
	"errors"
	"regexp"
	"strconv"
	"time"

	"github.com/Azure/go-amqp"

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
// documentation.
func Classify(err error, defaultWait time.Duration) *sinks.Error {
	e, ok := condition(err)
	if !ok {
		return &sinks.Error{Kind: sinks.Unreachable, Err: err}
	}
	switch e.Condition {
	case "com.microsoft:server-busy", amqp.ErrCondResourceLimitExceeded:
		wait := defaultWait
		if m := waitText.FindStringSubmatch(e.Description); m != nil {
			if seconds, err := strconv.Atoi(m[1]); err == nil {
				wait = time.Duration(seconds) * time.Second
			}
		}
		return &sinks.Error{Kind: sinks.Throttled, Wait: wait, Err: err}
	case amqp.ErrCondUnauthorizedAccess, "com.microsoft:auth-failed", "com.microsoft:publisher-revoked":
		return &sinks.Error{Kind: sinks.Unauthorized, Err: err}
	case amqp.ErrCondMessageSizeExceeded:
		return &sinks.Error{Kind: sinks.TooLarge, Err: err}
	case amqp.ErrCondDecodeError, amqp.ErrCondInvalidField, amqp.ErrCondNotAllowed, amqp.ErrCondNotImplemented,
		amqp.ErrCondPreconditionFailed, "com.microsoft:argument-error", "com.microsoft:argument-out-of-range":
		return &sinks.Error{Kind: sinks.Rejected, Err: err}
	}
	return &sinks.Error{Kind: sinks.Unreachable, Err: err}
}

// condition digs the AMQP error out: of a rejected delivery, a detached link
// or a closed connection.
func condition(err error) (*amqp.Error, bool) {
	if e, ok := errors.AsType[*amqp.Error](err); ok {
		return e, true
	}
	if e, ok := errors.AsType[*amqp.LinkError](err); ok && e.RemoteErr != nil {
		return e.RemoteErr, true
	}
	if e, ok := errors.AsType[*amqp.ConnError](err); ok && e.RemoteErr != nil {
		return e.RemoteErr, true
	}
	return nil, false
}
