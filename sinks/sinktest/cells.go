package sinktest

import (
	"time"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
)

// fate is what becomes of an event that meets the fault.
type fate uint8

const (
	dropped   fate = iota // with the cell's reason, and the endpoint backs off
	delivered             // the fault costs nothing but time
	kept                  // until the fault clears; in the end dropped with the cell's reason
	aside                 // if it is bad: the others are delivered
)

// cell is a row of the matrix: a fault and what has to follow. It is run with
// the fault staying and with the fault clearing, and where that makes sense
// with the fault striking only once.
type cell struct {
	name   string
	fault  emulator.Fault
	whole  bool       // the fault is the whole namespace's
	cold   bool       // it is there before the first connection
	breaks func(*rig) // in place of fault
	mends  func(*rig)
	tls    bool // of AMQP, which is in plain text otherwise

	fate   fate
	reason event.Reason
	cause  string // what LastError, or the dead letter, names: a regular expression
	// repeats: what is struck is stored although its sender is told otherwise.
	repeats bool
	once    bool // also run with the fault striking once, which costs no event
	big     bool // the batch that is struck needs several frames
	alone   bool // one lane at a time
	oneKey  bool // the endpoint has no secondary
	key2    bool // the secondary is in use afterwards
	bad     func(*rig) string

	identity bool // the endpoint has no keys, and AMQP is over TLS

	// Why it is not run in the other ways.
	onlyStays, onlyOnce string

	// leftOut says why there is no such cell for a service.
	leftOut map[endpoints.Type]string
}

// Why some cells are not there.
var (
	notGrid = func(why string) map[endpoints.Type]string {
		return map[endpoints.Type]string{endpoints.TypeEventGrid: why}
	}
	onlyGrid = func(why string) map[endpoints.Type]string {
		return map[endpoints.Type]string{endpoints.TypeEventHub: why, endpoints.TypeServiceBus: why}
	}
)

const timedOut = `deadline exceeded|timeout|timed out`

func cells() []cell { return append(keyCells(), identityCells()...) }

func keyCells() []cell {
	return []cell{
		{
			// The last of the tries may have met a connection that was being closed.
			name: "refused", fault: emulator.Fault{Down: true}, whole: true,
			reason: event.Unreachable, cause: `connection refused|EOF|reset by peer`,
		},
		{
			name: "refused from the start", fault: emulator.Fault{Down: true}, whole: true, cold: true,
			reason: event.Unreachable, cause: `connection refused`,
		},
		{
			name: "no such host", breaks: (*rig).moveToNowhere, mends: (*rig).moveBack,
			reason: event.Unreachable, cause: `lookup .*\.invalid`,
		},
		{
			name: "silent", fault: emulator.Fault{Hang: true, Silent: true}, whole: true,
			reason: event.Unreachable, cause: timedOut,
			leftOut: notGrid("the same as from the start: each request may get a new connection"),
		},
		{
			name: "silent from the start", fault: emulator.Fault{Hang: true}, whole: true, cold: true,
			reason: event.Unreachable, cause: timedOut,
		},
		{
			name: "untrusted certificate", cold: true, tls: true, breaks: (*rig).wrongCertificate, mends: (*rig).rightCertificate,
			reason: event.Unreachable, cause: `certificate signed by unknown authority`,
		},
		{
			name: "unknown entity", fault: emulator.Fault{Refuse: "amqp:not-found"},
			reason: event.Unreachable, cause: `could not be found`,
		},
		{
			name: "unknown entity from the start", fault: emulator.Fault{Refuse: "amqp:not-found"}, cold: true,
			reason: event.Unreachable, cause: `could not be found`,
		},
		{
			name: "disabled entity", fault: emulator.Fault{Refuse: "com.microsoft:entity-disabled"},
			reason: event.Unreachable, cause: `currently disabled`,
			leftOut: notGrid("a topic can't be disabled"),
		},
		{
			name: "one key refused", fault: emulator.Fault{RejectKey: "primary"}, fate: delivered, key2: true,
		},
		{
			name: "one key refused from the start", fault: emulator.Fault{RejectKey: "primary"}, cold: true, fate: delivered, key2: true,
		},
		{
			name: "both keys refused", fault: emulator.Fault{RejectKey: "both"},
			reason: event.Unauthorized, cause: `both keys are refused: primary: .*[Uu]nauthorized.*; secondary: .*[Uu]nauthorized`,
		},
		{
			name: "the only key refused", fault: emulator.Fault{RejectKey: "primary"}, oneKey: true,
			reason: event.Unauthorized, cause: `primary key: .*[Uu]nauthorized.*no secondary`,
		},
		{
			name: "throttled", fault: emulator.Fault{Throttle: 1}, fate: kept,
			reason: event.Throttled, cause: `server-busy.*wait 1 seconds|HTTP 429`,
		},
		{
			name: "internal error", fault: rejectedWith("amqp:internal-error"), once: true,
			reason: event.Unreachable, cause: `amqp:internal-error`,
			leftOut: notGrid("it is HTTP 500 there"),
		},
		{
			name: "HTTP 500", fault: emulator.Fault{Status: 500}, once: true,
			reason: event.Unreachable, cause: `HTTP 500`, leftOut: onlyGrid("no HTTP"),
		},
		{
			name: "HTTP 503", fault: emulator.Fault{Status: 503}, once: true,
			reason: event.Unreachable, cause: `HTTP 503`, leftOut: onlyGrid("no HTTP"),
		},
		{
			name: "HTTP 503, retry after", fault: emulator.Fault{Status: 503, RetryAfter: 1}, fate: kept,
			reason: event.Throttled, cause: `HTTP 503`, leftOut: onlyGrid("no HTTP"),
		},
		{
			name: "cut amid the transfer", fault: emulator.Fault{Cut: emulator.CutMid}, once: true, big: true,
			reason: event.Unreachable, cause: lost,
			leftOut: notGrid("the service sees whole requests only"),
		},
		{
			name: "cut before it is stored", fault: emulator.Fault{Cut: emulator.CutBefore}, once: true,
			reason: event.Unreachable, cause: lost,
		},
		{
			name: "cut during the answer", fault: emulator.Fault{Cut: emulator.CutDuring}, once: true, repeats: true,
			reason: event.Unreachable, cause: lost,
		},
		{
			name: "cut after the answer", fault: emulator.Fault{Cut: emulator.CutAfter}, once: true, fate: delivered,
			alone:   true, // or each lane's connection is cut by the others, time and again
			repeats: true, // the answer can be lost with the connection, on the client's side
			leftOut: notGrid("a request whose answer was read is over; the next one dials anew"),
		},
		{
			name: "connection forced", fault: emulator.Fault{Cut: emulator.CutClose}, once: true,
			reason: event.Unreachable, cause: `connection:forced|` + lost,
			leftOut: notGrid("HTTP has no such frame"),
		},
		{
			name: "never settled", fault: emulator.Fault{NeverSettle: true}, repeats: true,
			reason: event.Unreachable, cause: timedOut,
		},
		{
			name: "no credit", fault: emulator.Fault{NoCredit: true}, cold: true,
			reason: event.Unreachable, cause: timedOut,
			leftOut: notGrid("HTTP has no credit"),
		},
		{
			name: "detached", fault: emulator.Fault{Detach: "amqp:link:detach-forced"}, once: true,
			reason: event.Unreachable, cause: `detach-forced`,
			leftOut: notGrid("HTTP has no links"),
		},
		{
			name: "detached with a condition that could be the event's", fault: emulator.Fault{Detach: "amqp:not-allowed"}, once: true,
			reason: event.Unreachable, cause: `not-allowed`,
			leftOut: notGrid("HTTP has no links"),
		},
		{
			name: "detached for another's size", fault: emulator.Fault{Detach: "amqp:link:message-size-exceeded"},
			once: true, onlyOnce: "each detachment blames the event that meets it",
			leftOut: notGrid("HTTP has no links"),
		},
		{
			name: "slow", fault: emulator.Fault{Delay: emulator.Duration(100 * time.Millisecond)}, fate: delivered,
		},
		{
			name: "too large", fate: aside, reason: event.TooLarge, cause: `larger than the`,
			bad: (*rig).tooLarge, onlyStays: "the event stays too large",
		},
		{
			name: "poison", fault: emulator.Fault{Poison: "arsenic"}, fate: aside, reason: event.Rejected,
			cause: `amqp:not-allowed|HTTP 400`, bad: func(*rig) string { return "arsenic" },
		},
		{
			name: "poison, said otherwise", fault: emulator.Fault{Poison: "arsenic", Condition: "com.microsoft:argument-error"},
			fate: aside, reason: event.Rejected, cause: `argument-error`, bad: func(*rig) string { return "arsenic" },
			// The SDKs take the whole connection for lost, and with it what others have in flight.
			repeats: true,
			leftOut: notGrid("there is only HTTP 400"),
		},
		{
			name: "released", fault: emulator.Fault{Outcome: emulator.OutcomeReleased}, once: true,
			reason: event.Unreachable, cause: `gave the batch back`, leftOut: notGrid("HTTP has no such outcome"),
		},
		{
			name: "modified", fault: emulator.Fault{Outcome: emulator.OutcomeModified}, once: true,
			reason: event.Unreachable, cause: `gave the batch back`, leftOut: notGrid("HTTP has no such outcome"),
		},
	}
}

// lost is how the end of a connection comes out, depending on who noticed it first.
const lost = `connlost|EOF|connection reset|broken pipe|closed`
