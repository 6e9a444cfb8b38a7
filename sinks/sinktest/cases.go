package sinktest

import (
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"twinegress/internal/emulator"
	"twinegress/internal/event"
)

// outcome is what becomes of an event that meets the fault.
type outcome uint8

const (
	dropped   outcome = iota // with the case's reason, and the endpoint backs off
	delivered                // the fault costs nothing but time
	kept                     // until the fault is repaired; in the end dropped with the case's reason
	setAside                 // if it is bad: the others are delivered
)

// faultCase is a row of the matrix: a fault and what has to follow. It has a
// field for each thing in which the rows differ.
type faultCase struct {
	name string
	only protocol
	how  []string // how the fault goes on, a test each; nil: clears and stays

	// The fault: one of these.
	fault  emulator.Fault
	tokens error      // of Entra ID, instead of a token
	inject func(*env) // with repair
	repair func(*env)

	// Where and when it is.
	whole    bool   // the fault is the whole namespace's
	cold     bool   // it is there before the first connection
	bad      string // the text of the events that it is about
	tls      bool   // AMQP is over TLS; it is in plain text otherwise
	identity bool   // the endpoint has no keys, and AMQP is over TLS
	oneKey   bool   // the endpoint has no secondary
	big      bool   // the batch that meets it needs several frames
	alone    bool   // one lane at a time

	// What follows.
	want      outcome
	reason    event.Reason
	cause     string // what LastError, or the dead letter, names: a regular expression
	repeats   bool   // what meets it may be stored although its sender is told otherwise
	secondary bool   // the secondary key is in use afterwards
}

// How a fault goes on.
const (
	clears = "clears"
	stays  = "stays"
	once   = "once" // it costs no event then
)

var andOnce = []string{clears, stays, once}

// Causes that several cases have.
const (
	timedOut = `deadline exceeded|timeout|timed out`
	// lost is how the end of a connection comes out, depending on who noticed it first.
	lost = `connlost|EOF|connection reset|broken pipe|closed`
	// The last of the tries may have met a connection that was being closed.
	refused = `connection refused|EOF|reset by peer`
)

// echo is what a service says that repeats what it was sent, in the forms in
// which it may have read it, and steers the reader's terminal.
var echo = func() string {
	said := []string{"\x1b[2J was sent"}
	for _, key := range []string{keys.Primary, keys.Secondary} {
		said = append(said, key, url.QueryEscape(key), base64.StdEncoding.EncodeToString([]byte("key:"+key)))
	}
	return strings.Join(said, " ")
}()

// errSilent makes Entra ID not answer at all.
var errSilent = errors.New("silent")

func cases() []faultCase {
	return []faultCase{
		{name: "refused", fault: emulator.Fault{Down: true}, whole: true, reason: event.Unreachable, cause: refused},
		{name: "refused from the start", fault: emulator.Fault{Down: true}, whole: true, cold: true, reason: event.Unreachable, cause: `connection refused`},
		{name: "no such host", inject: (*env).moveToNowhere, repair: (*env).moveBack, reason: event.Unreachable, cause: `lookup .*\.invalid`},
		// Over HTTP the same as from the start: each request may get a new connection.
		{name: "silent", only: amqp, fault: emulator.Fault{Hang: true, Silent: true}, whole: true, reason: event.Unreachable, cause: timedOut},
		{name: "silent from the start", fault: emulator.Fault{Hang: true}, whole: true, cold: true, reason: event.Unreachable, cause: timedOut},
		{
			name: "untrusted certificate", whole: true, cold: true, tls: true, inject: (*env).wrongCertificate, repair: (*env).rightCertificate,
			reason: event.Unreachable, cause: `certificate signed by unknown authority`,
		},
		{name: "unknown entity", fault: emulator.Fault{Refuse: "amqp:not-found"}, reason: event.Unreachable, cause: `could not be found`},
		{name: "unknown entity from the start", fault: emulator.Fault{Refuse: "amqp:not-found"}, cold: true, reason: event.Unreachable, cause: `could not be found`},
		{name: "disabled entity", only: amqp, fault: emulator.Fault{Refuse: "com.microsoft:entity-disabled"}, reason: event.Unreachable, cause: `currently disabled`},
		{name: "one key refused", fault: emulator.Fault{RejectKey: "primary"}, want: delivered, secondary: true},
		{name: "one key refused from the start", fault: emulator.Fault{RejectKey: "primary"}, cold: true, want: delivered, secondary: true},
		{
			name: "both keys refused", fault: emulator.Fault{RejectKey: "both"},
			reason: event.Unauthorized, cause: `both keys are refused: .*[Uu]nauthorized`,
		},
		{
			name: "the only key refused", fault: emulator.Fault{RejectKey: "primary"}, oneKey: true,
			reason: event.Unauthorized, cause: `primary key: .*[Uu]nauthorized.*no secondary`,
		},
		{name: "throttled", fault: emulator.Fault{Throttle: 1}, want: kept, reason: event.Throttled, cause: `server-busy.*wait 1 seconds|HTTP 429`},
		{name: "internal error", only: amqp, how: andOnce, fault: rejectedWith("amqp:internal-error"), reason: event.Unreachable, cause: `amqp:internal-error`},
		{name: "HTTP 500", only: http, how: andOnce, fault: emulator.Fault{Status: 500}, reason: event.Unreachable, cause: `HTTP 500`},
		{name: "HTTP 503", only: http, how: andOnce, fault: emulator.Fault{Status: 503}, reason: event.Unreachable, cause: `HTTP 503`},
		{name: "HTTP 503, retry after", only: http, fault: emulator.Fault{Status: 503, RetryAfter: 1}, want: kept, reason: event.Throttled, cause: `HTTP 503`},
		// Over HTTP the service sees whole requests only.
		{name: "cut amid the transfer", only: amqp, how: andOnce, fault: emulator.Fault{Cut: emulator.CutMid}, big: true, reason: event.Unreachable, cause: lost},
		{name: "cut before it is stored", how: andOnce, fault: emulator.Fault{Cut: emulator.CutBefore}, reason: event.Unreachable, cause: lost},
		{name: "cut during the answer", how: andOnce, fault: emulator.Fault{Cut: emulator.CutDuring}, reason: event.Unreachable, cause: lost, repeats: true},
		{
			// An HTTP request whose answer was read is over; the next one dials anew.
			name: "cut after the answer", only: amqp, how: andOnce, fault: emulator.Fault{Cut: emulator.CutAfter},
			alone: true, // or each lane's connection is cut by the others, time and again
			want:  delivered,
			// The answer can be lost with the connection, on the client's side.
			repeats: true,
		},
		{name: "connection forced", only: amqp, how: andOnce, fault: emulator.Fault{Cut: emulator.CutClose}, reason: event.Unreachable, cause: `connection:forced|` + lost},
		{name: "never settled", fault: emulator.Fault{NeverSettle: true}, reason: event.Unreachable, cause: timedOut, repeats: true},
		{name: "no credit", only: amqp, fault: emulator.Fault{NoCredit: true}, cold: true, reason: event.Unreachable, cause: timedOut},
		{name: "detached", only: amqp, how: andOnce, fault: emulator.Fault{Detach: "amqp:link:detach-forced"}, reason: event.Unreachable, cause: `detach-forced`},
		{
			name: "detached with a condition that could be the event's", only: amqp, how: andOnce, fault: emulator.Fault{Detach: "amqp:not-allowed"},
			reason: event.Unreachable, cause: `not-allowed`,
		},
		// More than once, each detachment would blame the event that meets it.
		{name: "detached for another's size", only: amqp, how: []string{once}, fault: emulator.Fault{Detach: "amqp:link:message-size-exceeded"}},
		{name: "slow", fault: emulator.Fault{Delay: emulator.Duration(100 * time.Millisecond)}, want: delivered},
		{
			name: "too large", how: []string{stays}, bad: strings.Repeat("x", max(maxMessage, emulator.GridMaxBytes)),
			want: setAside, reason: event.TooLarge, cause: `larger than the`,
		},
		{name: "poison", fault: emulator.Fault{Poison: "arsenic"}, bad: "arsenic", want: setAside, reason: event.Rejected, cause: `amqp:not-allowed|HTTP 400`},
		{
			name: "poison, said otherwise", only: amqp, fault: emulator.Fault{Poison: "arsenic", Condition: "com.microsoft:argument-error"}, bad: "arsenic",
			want: setAside, reason: event.Rejected, cause: `argument-error`,
			// The SDKs take the whole connection for lost, and with it what others have in flight.
			repeats: true,
		},
		{
			name: "poison, with the keys in the answer", fault: emulator.Fault{Poison: "arsenic", Description: echo}, bad: "arsenic",
			want: setAside, reason: event.Rejected, cause: `was sent.*\*\*\*`,
		},
		{
			name: "an error with the keys in it", only: amqp, how: andOnce, fault: emulator.Fault{Outcome: emulator.OutcomeRejected, Condition: "amqp:internal-error", Description: echo},
			reason: event.Unreachable, cause: `was sent.*\*\*\*`,
		},
		{
			name: "detached with the keys in the reason", only: amqp, how: andOnce, fault: emulator.Fault{Detach: "amqp:internal-error", Description: echo},
			reason: event.Unreachable, cause: `was sent.*\*\*\*`,
		},
		{name: "HTTP 500 with the keys in it", only: http, how: andOnce, fault: emulator.Fault{Status: 500, Description: echo}, reason: event.Unreachable, cause: `was sent.*\*\*\*`},
		{name: "released", only: amqp, how: andOnce, fault: emulator.Fault{Outcome: emulator.OutcomeReleased}, reason: event.Unreachable, cause: `gave the batch back`},
		{name: "modified", only: amqp, how: andOnce, fault: emulator.Fault{Outcome: emulator.OutcomeModified}, reason: event.Unreachable, cause: `gave the batch back`},

		// What can go wrong with an identity, and that all else goes wrong as it
		// does with a key.
		{
			name: "identity refused", identity: true, fault: emulator.Fault{RejectKey: "identity"},
			reason: event.Unauthorized, cause: `this process's identity may not send .*[Uu]nauthorized`,
		},
		{
			name: "identity refused from the start", identity: true, fault: emulator.Fault{RejectKey: "identity"}, cold: true,
			reason: event.Unauthorized, cause: `this process's identity may not send .*[Uu]nauthorized`,
		},
		{
			name: "no identity", identity: true, tokens: errors.New("nobody is logged in"), cold: true,
			reason: event.Unauthorized, cause: `no token from Entra ID: nobody is logged in`,
		},
		{
			name: "tokens can't be had", identity: true, tokens: &net.OpError{Op: "dial", Err: errors.New("connection refused")}, cold: true,
			reason: event.Unreachable, cause: `no token from Entra ID: .*connection refused`,
		},
		{name: "tokens never come", identity: true, tokens: errSilent, cold: true, reason: event.Unreachable, cause: `no token from Entra ID: .*(` + timedOut + `)`},
		{name: "with an identity, keys refused", identity: true, fault: emulator.Fault{RejectKey: "both"}, want: delivered},
		{
			name: "with an identity, cut before it is stored", identity: true, how: andOnce, fault: emulator.Fault{Cut: emulator.CutBefore},
			reason: event.Unreachable, cause: lost,
		},
		{name: "with an identity, unreachable", identity: true, fault: emulator.Fault{Down: true}, whole: true, reason: event.Unreachable, cause: refused},
	}
}
