package sinks

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/event"
	"twinegress/sinks/breaker"
)

const (
	// retryDelay comes before the second try of a batch, and doubles from there.
	retryDelay = 100 * time.Millisecond
	// minThrottle is the least that a throttled batch waits: a service may say
	// "0 seconds", or a moment that is past, and must not be asked in a tight loop.
	minThrottle = time.Second
)

// send puts events of a batch on the service: as many, from the front, as the
// service takes at a time. It returns how many that were, also with an error:
// then none of them is stored. A probe's first try retires the open sinks and
// begins with the primary key.
type send func(ctx context.Context, batch []*event.Event, probe bool) (n int, err *Error)

// guardedSend is a send behind the breaker, which decides what is a probe.
type guardedSend func(ctx context.Context, batch []*event.Event) (n int, err *Error)

// delivery is how one connection of an endpoint is used.
type delivery struct {
	conn    *connection
	options *Options
	ledger  *ledger
	log     *zap.Logger
}

// compose returns the connection's send:
//
//	breaker( throttle( excuse( attempts( observe( failover( sink ) ) ) ) ) )
//
// It is composed once a connection, from the inside out: each layer has one
// decision to make about what the one below returned. Above it is bisect, which
// is the sender's: a batch may outlast a connection.
func (d *delivery) compose() guardedSend {
	send := d.conn.failover // a key is refused: the same batch with the other one
	send = d.observe(send)  // each send is measured
	send = d.attempts(send) // unreachable: tried again, within a time-out
	send = d.excuse(send)   // unreachable for this process's own state: no failure
	send = d.throttle(send) // throttled: waits, the batch is kept
	return d.breaker(send)  // failed all the same: the endpoint backs off
}

func (d *delivery) observe(next send) send {
	return func(ctx context.Context, batch []*event.Event, probe bool) (int, *Error) {
		start := time.Now()
		n, err := next(ctx, batch, probe)
		d.ledger.sent(n, time.Since(start))
		return n, err
	}
}

// attempts tries up to Attempts times within Timeout. The batch and its order
// stay the same, so a try whose acknowledgement was lost repeats message ids
// that the reader knows.
func (d *delivery) attempts(next send) send {
	return func(ctx context.Context, batch []*event.Event, probe bool) (int, *Error) {
		ctx, cancel := context.WithTimeout(ctx, d.options.Timeout)
		defer cancel()
		delay := retryDelay
		var before *Error // of the last try
		for attempt := 1; ; attempt++ {
			n, err := next(ctx, batch, probe && attempt == 1)
			if err != nil && before != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				// That the time was up amid this try says nothing; the one before does.
				err = &Error{Reason: event.Unreachable, Err: textf("%v, after %v", err.Err, before.Err)}
			}
			if err == nil || err.Reason != event.Unreachable || attempt >= d.options.Attempts || !d.conn.wait(ctx, delay) {
				return n, err
			}
			delay *= 2
			before = err
		}
	}
}

// excuse sends once more what failed for no fault of the endpoint's: while the whole
// process was held up, or had no descriptor left for a connection.
func (d *delivery) excuse(next send) send {
	return func(ctx context.Context, batch []*event.Event, probe bool) (int, *Error) {
		for waits := false; ; {
			pauses, shortages := d.options.Pauses.Sum(), d.options.Shortages.sum()
			n, err := next(ctx, batch, probe)
			if err == nil || err.Reason != event.Unreachable || d.ended(ctx) {
				return n, err
			}
			if pause := d.options.Pauses.Sum() - pauses; pause > 0 {
				d.log.Info("the process was held up while it sent; what was not sent for that is sent again",
					zap.Duration("for", pause), zap.Error(err.Err))
				continue
			}
			if d.options.Shortages.sum() == shortages {
				return n, err
			}
			if d.options.Shortages.say(time.Now()) {
				d.log.Error("this process can open no more connections: what needs one is kept and tried again; raise its limit of open files", zap.Error(err.Err))
			}
			if !waits { // and so also while it tries again
				waits = true
				d.ledger.throttle(err)
				defer d.ledger.resume()
			}
			if !d.conn.wait(ctx, shortageWait) {
				return n, err
			}
		}
	}
}

// throttle waits as long as the service asks, up to ThrottleLimit in all. What is
// left of the limit is compared, not the sum: a service may ask for centuries,
// and the sum with those would overflow.
func (d *delivery) throttle(next send) send {
	return func(ctx context.Context, batch []*event.Event, probe bool) (int, *Error) {
		for waited := time.Duration(0); ; {
			n, err := next(ctx, batch, probe)
			if err == nil || err.Reason != event.Throttled || d.ended(ctx) {
				return n, err
			}
			wait := max(err.Wait, minThrottle)
			if wait > d.options.ThrottleLimit-waited {
				return n, err
			}
			waited += wait
			if d.ledger.throttle(err) {
				d.log.Warn("the service throttles: waiting as told, events are kept", zap.Duration("wait", wait), zap.Error(err.Err))
			}
			over := d.conn.wait(ctx, wait)
			d.ledger.resume()
			if !over {
				return n, err
			}
		}
	}
}

var (
	// errBackingOff is breaker's, for a batch that it did not send.
	errBackingOff = &Error{Reason: event.Backoff, Err: text("the endpoint backs off")}
	// errEnded is breaker's for a batch that failed while its sender was stopped
	// or its connection replaced: it has no outcome yet.
	errEnded = &Error{Reason: event.Unreachable, Err: text("the connection is not used any more")}
)

// breaker holds its permit until the batch is through, also while the service
// throttles: a probe may take minutes.
func (d *delivery) breaker(next send) guardedSend {
	return func(ctx context.Context, batch []*event.Event) (int, *Error) {
		permit, ok := d.ledger.breaker.Acquire(time.Now())
		if !ok {
			return 0, errBackingOff
		}
		n, err := next(ctx, batch, permit.Probe)
		if err.isRejection() && n < 1 {
			// Refused before any event was looked at: no event is to blame.
			err = &Error{Reason: event.Unreachable, Err: err.Err}
		}
		switch {
		case err == nil:
			d.recordSuccess(permit)
		case d.ended(ctx):
			d.ledger.breaker.Cancel(permit)
			return 0, errEnded
		case err.isRejection(): // the service works, only an event is bad
			d.recordSuccess(permit)
		default:
			if until, opened := d.ledger.openBreaker(permit, err); opened {
				d.log.Warn("endpoint backs off: its events are dropped until it is tried again",
					zap.Stringer("reason", err.Reason), zap.Time("until", until), zap.Error(err.Err))
			}
		}
		return n, err
	}
}

// bisect gives the events of a batch their outcome, and returns how many, from
// the front, have one. What does not fit in one batch of the service's is left
// for the next, which may be a fuller one by then. If the connection was replaced
// under a send, the batch is sent again at once: next uses the new connection.
//
// A batch that is rejected for what is in it is halved until the bad event is
// alone. What is known to hold it is remembered from send to send, so that k
// bad events among n cost O(k log n) sends, and the others arrive, in order.
func bisect(next guardedSend, o *outcomes) func(ctx context.Context, batch []*event.Event) (done int) {
	return func(ctx context.Context, batch []*event.Event) (done int) {
		suspects := 0 // a bad event is among the first so many that are left
		for done < len(batch) {
			left := batch[done:]
			part := left
			if suspects > 0 {
				part = left[:(suspects+1)/2]
			}
			n, err := next(ctx, part)
			switch {
			case err == nil:
				o.deliver(left[:n])
				done += n
				if suspects = max(suspects-n, 0); suspects == 0 {
					return done
				}
			case err == errEnded && ctx.Err() != nil:
				return done
			case err == errEnded:
				suspects = 0
			case err.isRejection() && n > 1:
				suspects = n
			case err.isRejection():
				o.reject(left[:1], err.Reason, err.Err.Error())
				done++
				suspects = 0
			default:
				o.drop(left, err.Reason, err.Err.Error())
				return len(batch)
			}
		}
		return done
	}
}

// ended reports whether the sender is stopped or has a new connection.
func (d *delivery) ended(ctx context.Context) bool { return ctx.Err() != nil || d.conn.isReplaced() }

func (d *delivery) recordSuccess(p breaker.Permit) {
	if d.ledger.recordSuccess(p, d.conn) {
		d.log.Info("endpoint ready")
	}
}
