package sinks

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/event"
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
// then none of them is stored.
type send func(ctx context.Context, batch []*event.Event, probe probe) (n int, err *Error)

// probe is what a send is to find out.
type probe uint8

const (
	noProbe probe = iota
	// probePart: whether a part works. It has a connection of its own, which stays
	// if it does: a client takes some answers of one partition for the end of its
	// connection, and with it breaks off what others are sending.
	probePart
	// probeAll: whether the endpoint works. It retires the open sinks and begins with
	// the primary key.
	probeAll
)

// guardedSend is a send behind the breaker, which decides what is a probe.
type guardedSend func(ctx context.Context, batch []*event.Event) (n int, err *Error)

// delivery is how one connection of an endpoint is used.
type delivery struct {
	conn    *connection
	options *Options
	ledger  *ledger
	sends   *openSends
	log     *atomic.Pointer[zap.Logger] // the sender's named
	// catchesUp reports whether the endpoint's events are kept in Kafka for it.
	catchesUp func() bool
}

// say writes what befell the endpoint, by itself or with others of its host.
func (d *delivery) say(r report) {
	r.host, r.endpoint, r.path, r.log = d.conn.endpoint.Host(), d.conn.endpoint.ID, d.conn.endpoint.Path, d.log.Load()
	d.options.Outages.say(r)
}

// of returns the report of a failure.
func (e *Error) of(t turn, what string, fields ...zap.Field) report {
	cause := e.Cause
	if cause == "" { // nobody knows what it is: no other is like it unless it says the same
		cause = e.Err.Error()
	}
	return report{turn: t, what: what, fields: fields, cause: cause, reason: e.Reason.String(), err: e.Err}
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
	return func(ctx context.Context, batch []*event.Event, probe probe) (int, *Error) {
		start := time.Now()
		open := d.sends.begin(batch, start)
		n, err := next(ctx, batch, probe)
		d.sends.end(open)
		d.ledger.sent(n, start, err)
		return n, err
	}
}

// attempts tries up to Attempts times within Timeout. The batch and its order
// stay the same, so a try whose acknowledgement was lost repeats message ids
// that the reader knows.
func (d *delivery) attempts(next send) send {
	return func(ctx context.Context, batch []*event.Event, probe probe) (int, *Error) {
		ctx, cancel := context.WithTimeout(ctx, d.options.Timeout)
		defer cancel()
		delay := retryDelay
		since := time.Now()
		var before *Error // of the last try
		for attempt := 1; ; attempt++ {
			n, err := next(ctx, batch, probe)
			if err == nil {
				return n, nil
			}
			failed := *err
			if before != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
				// That the time was up amid this try says nothing; the one before does.
				failed = Error{Reason: event.Unreachable, Parts: before.Parts, Err: textf("%v, after %v", err.Err, before.Err)}
			}
			failed.since = since
			known := time.Now()
			if failed.Reason != event.Unreachable || attempt >= d.options.Attempts || !d.conn.wait(ctx, delay) {
				return n, &failed
			}
			if attempt == 1 {
				since = known
			}
			delay *= 2
			if probe, before = noProbe, &failed; failed.ofPart() {
				probe = probePart
			}
		}
	}
}

// excuse sends once more what failed for no fault of the endpoint's: while the whole
// process was held up, or had no descriptor left for a connection.
func (d *delivery) excuse(next send) send {
	return func(ctx context.Context, batch []*event.Event, probe probe) (int, *Error) {
		for waits := false; ; {
			pauses, shortages := d.options.Pauses.Sum(), d.options.Shortages.sum()
			n, err := next(ctx, batch, probe)
			if err == nil || err.Reason != event.Unreachable || d.ended(ctx) {
				return n, err
			}
			if pause := d.options.Pauses.Sum() - pauses; pause > 0 {
				d.log.Load().Info("the process was held up while it sent; what was not sent for that is sent again",
					zap.Duration("for", pause), zap.Error(err.Err))
				continue
			}
			if d.options.Shortages.sum() == shortages {
				return n, err
			}
			if d.options.Shortages.say(time.Now()) {
				d.log.Load().Error("this process can open no more connections: what needs one is kept and tried again; raise its limit of open files", zap.Error(err.Err))
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
	return func(ctx context.Context, batch []*event.Event, probe probe) (int, *Error) {
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
				d.say(err.of(turnThrottled, "the service throttles: waiting as told, events are kept", zap.Duration("wait", wait)))
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
		permit, refusal := d.ledger.backoff.acquire(batch[0].Chunk.Partition, time.Now())
		if refusal != nil {
			return 0, refusal
		}
		if permit.Probe {
			d.ledger.probes()
		}
		n, err := next(ctx, batch, permit.probe())
		if err.isRejection() && n < 1 {
			// Refused before any event was looked at: no event is to blame.
			err.Reason, err.Wait = event.Unreachable, 0
		}
		switch {
		case err == nil:
			d.recordSuccess(permit)
		case d.ended(ctx):
			d.ledger.backoff.cancel(permit)
			d.ledger.probes()
			return 0, errEnded
		case err.isRejection(): // the service works, only an event is bad
			d.recordSuccess(permit)
		default:
			d.backOff(permit, err)
		}
		return n, err
	}
}

// backOff makes what failed back off, and notes in err how much that is.
func (d *delivery) backOff(permit permit, err *Error) {
	part, until, opened := d.ledger.backOff(permit, err)
	if err.Parts = 0; part != nil {
		err.Parts = part.of
	}
	switch {
	case !opened:
	case part != nil && d.catchesUp():
		d.say(err.of(turnPartBackOff, "part of the endpoint backs off: it catches up on the events of this partition once it works",
			zap.Int("hubPartition", part.index), zap.Int("hubPartitions", part.of), zap.Time("until", until)))
	case part != nil:
		d.say(err.of(turnPartBackOff, "part of the endpoint backs off: the events of this partition are dropped until it is tried again",
			zap.Int("hubPartition", part.index), zap.Int("hubPartitions", part.of), zap.Time("until", until)))
	case d.catchesUp():
		d.say(err.of(turnBackOff, "endpoint backs off: it catches up on its events once it works", zap.Time("until", until)))
	default:
		d.say(err.of(turnBackOff, "endpoint backs off: its events are dropped until it is tried again", zap.Time("until", until)))
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
			default: // it backs off: the endpoint, or the part that left begins with
				left = left[:ofPart(left, err.Parts)]
				o.fail(left, err.Reason, err.Err.Error())
				return done + len(left)
			}
		}
		return done
	}
}

// ofPart returns how many events, from the front, go to the same one of so many
// parts; all of them if there are no parts.
func ofPart(events []*event.Event, parts int) (n int) {
	if parts == 0 {
		return len(events)
	}
	part := int(events[0].Chunk.Partition) % parts
	for n < len(events) && int(events[n].Chunk.Partition)%parts == part {
		n++
	}
	return n
}

// ended reports whether the sender is stopped or has a new connection.
func (d *delivery) ended(ctx context.Context) bool { return ctx.Err() != nil || d.conn.isReplaced() }

func (d *delivery) recordSuccess(p permit) {
	r := d.ledger.recordSuccess(p, d.conn)
	switch {
	case r == nil:
	case r.part != nil:
		d.say(report{
			turn: turnPartReady, what: "the part of the endpoint is ready again", off: r.off, lost: r.lost,
			fields: []zap.Field{zap.Int("hubPartition", r.part.index), zap.Int("hubPartitions", r.part.of)},
		})
	case r.off > 0:
		d.say(report{turn: turnReady, what: "endpoint ready again", off: r.off, lost: r.lost})
	default:
		d.say(report{turn: turnReady, what: "endpoint ready"})
	}
}
