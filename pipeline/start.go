package pipeline

import (
	"context"
	"fmt"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/kafka"
	"twinegress/internal/untrusted"
	"twinegress/sinks/deadletter"
	"twinegress/stages/ingest"
)

const (
	// connectInterval is the pause between two attempts to reach Kafka at the start.
	connectInterval = 2 * time.Second
	// firstReminder and lastReminder are how long it is until it is said again what
	// the start waits for: twice as long each time.
	firstReminder, lastReminder = 10 * time.Second, 10 * time.Minute
)

// intake is what needs Kafka. It is there once the endpoints are in force; until then
// only what is seen from outside works.
type intake struct {
	source  *ingest.Source
	letters *deadletter.Topic
}

// absence is why there is no intake yet.
type absence struct {
	since time.Time
	text  string // why Kafka is not there; empty: it is, and the endpoints are being loaded
}

// connect waits for Kafka, loads the endpoints, and joins the group last: a copy
// that owns partitions and can't go on would keep them from others. Afterwards the
// intake is there.
func (p *Pipeline) connect(ctx context.Context) (err error) {
	in := new(intake)
	if in.letters, err = p.await(ctx); err != nil {
		return err
	}
	p.absence.Store(&absence{since: time.Now()})
	set, err := p.options.Endpoints.Load(ctx)
	if err == nil {
		in.source, err = p.openSource()
	}
	if err != nil {
		_ = in.letters.Close(ctx) // it has none yet
		return err
	}
	p.source, p.letters, p.router.letters = in.source, in.letters, in.letters
	if p.recovery != nil {
		p.recovery.start()
	}
	p.apply(set)
	p.intake.Store(in)
	if p.options.Loaded != nil {
		p.options.Loaded()
	}
	return nil
}

// openSource opens the source, with who keeps the positions beside its marks.
func (p *Pipeline) openSource() (*ingest.Source, error) {
	if p.options.Recovery == nil {
		return p.options.OpenSource(nil)
	}
	r, err := newRecovery(p, p.options.Recovery, p.options.Sender.Behind)
	if err != nil {
		return nil, err
	}
	p.recovery, p.router.recovery = r, r
	return p.options.OpenSource(r)
}

// await opens the dead-letter topic, which is the first that asks the brokers. It
// tries until ctx ends or waiting doesn't mend the error.
func (p *Pipeline) await(ctx context.Context) (*deadletter.Topic, error) {
	log := p.options.Log
	begun := time.Now()
	var said time.Time
	reminder := firstReminder
	for {
		letters, err := p.options.OpenLetters(ctx)
		if err == nil && !said.IsZero() {
			log.Info("Kafka is there: the start goes on", zap.Duration("waited", time.Since(begun).Round(time.Millisecond)))
		}
		if err == nil || ctx.Err() != nil || kafka.Permanent(err) {
			return letters, err
		}
		p.absence.Store(&absence{begun, untrusted.Text(err.Error())})
		if now := time.Now(); said.IsZero() || now.Sub(said) >= reminder {
			if !said.IsZero() {
				reminder = min(2*reminder, lastReminder)
			}
			said = now
			log.Warn("waiting for Kafka: nothing is read until it is there",
				zap.Duration("for", now.Sub(begun).Round(time.Second)), zap.Error(err))
		}
		if !kafka.Pause(ctx, connectInterval) {
			return nil, ctx.Err()
		}
	}
}

// apply puts a set of endpoints in force. While there is none the source is held:
// before the empty table is in force, and until after another one is.
func (p *Pipeline) apply(set []endpoints.Endpoint) {
	hold := p.options.WaitForEndpoints && len(set) == 0
	if hold {
		p.source.Hold()
	}
	p.router.apply(set)
	if !hold {
		p.source.Release()
	}
}

// NotReady says, in sentences, what this copy lacks to move events; nothing if it
// lacks nothing. A dead letter that waits is no reason: one partition waits for it,
// and all others are served. Nor is a set without endpoints: it is as configured.
func (p *Pipeline) NotReady() []string {
	in := p.intake.Load()
	if in == nil {
		switch a := p.absence.Load(); {
		case a == nil:
		case a.text == "":
			return []string{fmt.Sprintf("loading the endpoints for %v", time.Since(a.since).Round(time.Second))}
		default:
			return []string{fmt.Sprintf("waiting for Kafka for %v: %s", time.Since(a.since).Round(time.Second), a.text)}
		}
		return []string{"starting: Kafka has not answered and the endpoints are not loaded yet"}
	}
	if p.stopping.Load() {
		return []string{"stopping: nothing more is read"}
	}
	return in.source.NotReady()
}

// consumer returns the state of the source; before there is one, of none.
func (p *Pipeline) consumer() ingest.Status {
	if in := p.intake.Load(); in != nil {
		return in.source.Status()
	}
	return ingest.Status{Partitions: []int32{}, Stalled: []int32{}, Waiting: []int32{}, Silence: time.Since(p.started)}
}

// deadLetters returns the state of the dead letters; before there are any, of none.
func (p *Pipeline) deadLetters() deadletter.Status {
	if in := p.intake.Load(); in != nil {
		return in.letters.Status()
	}
	return deadletter.Status{}
}
