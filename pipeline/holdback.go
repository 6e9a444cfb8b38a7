package pipeline

import (
	"cmp"
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"twinegress/sinks"
)

const (
	// holdBackEvery is how often the senders are asked whether others wait for them.
	// Those with no event take a nanosecond or a few.
	holdBackEvery = 2 * time.Second
	// An endpoint is named once in holdBackAgain, and with it at most
	// holdBackLines of them at a time: if all of a namespace's hold back, that is one
	// trouble.
	holdBackAgain = time.Minute
	holdBackLines = 3
)

// holdBacks names the endpoints that others wait for, in the log and in theirs.
type holdBacks struct {
	log    *zap.Logger
	paused func() time.Duration
	before time.Duration // paused
	said   map[string]time.Time
	since  map[string]*holdBack // those that hold back now
}

// holdBack is how long an endpoint holds back, and whether a line named it for that.
type holdBack struct {
	since time.Time
	named bool
}

func newHoldBacks(log *zap.Logger, paused func() time.Duration) *holdBacks {
	return &holdBacks{log: log, paused: paused, said: make(map[string]time.Time), since: make(map[string]*holdBack)}
}

func (p *Pipeline) watchHoldBacks(ctx context.Context) {
	h := newHoldBacks(p.options.Log, p.options.Sender.Pauses.Sum)
	tick := time.NewTicker(holdBackEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			// Not the ticker's time, which may be that before a pause.
			h.look(p.router.current(), p.source.Full(), time.Now())
		case <-ctx.Done():
			return
		}
	}
}

// look asks the senders. full is whether polling waits for what is in flight.
func (h *holdBacks) look(senders []*sinks.Sender, full bool, now time.Time) {
	if paused := h.paused(); paused != h.before { // nobody could have sent
		h.before = paused
		return
	}
	type slow struct {
		sender *sinks.Sender
		waits  time.Duration
	}
	var all []slow
	known := make(map[string]*holdBack, len(h.since))
	for _, s := range senders {
		waits := s.HoldBack(full, now)
		if waits == 0 && len(h.since) == 0 {
			continue
		}
		endpoint := s.Endpoint()
		before := h.since[endpoint.ID]
		switch {
		case waits > 0 && before == nil:
			known[endpoint.ID] = &holdBack{since: now}
		case waits > 0:
			known[endpoint.ID] = before
		case before != nil && before.named:
			h.log.Info("the intake does not wait for this endpoint any more", endpoint.LogName(), zap.Duration("for", now.Sub(before.since)))
		}
		if waits > 0 {
			all = append(all, slow{s, waits})
		}
	}
	h.since = known // without those that are deleted
	for id, said := range h.said {
		if now.Sub(said) >= holdBackAgain {
			delete(h.said, id)
		}
	}
	all = slices.DeleteFunc(all, func(s slow) bool {
		id := s.sender.Endpoint().ID
		_, said := h.said[id]
		if !said {
			h.said[id] = now
		}
		return said
	})
	slices.SortFunc(all, func(a, b slow) int { return cmp.Compare(b.waits, a.waits) })
	for i, s := range all[:min(len(all), holdBackLines)] {
		snap := s.sender.Snapshot()
		h.since[snap.Endpoint.ID].named = true
		fields := []zap.Field{
			snap.Endpoint.LogName(),
			zap.String("state", string(snap.State)), zap.Duration("waits", s.waits), zap.Int("pending", snap.Counts.Pending),
		}
		if others := len(all) - holdBackLines; i == holdBackLines-1 && others > 0 {
			fields = append(fields, zap.Int("others", others))
		}
		h.log.Warn("the intake waits for this endpoint: its oldest event has no outcome, so nothing behind it is committed", fields...)
	}
}
