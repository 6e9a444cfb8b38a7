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
}

func (p *Pipeline) watchHoldBacks(ctx context.Context) {
	h := holdBacks{log: p.options.Log, paused: p.options.Sender.Pauses.Sum, said: make(map[string]time.Time)}
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
	for _, s := range senders {
		if waits := s.HoldBack(full, now); waits > 0 {
			all = append(all, slow{s, waits})
		}
	}
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
