package pipeline

import (
	"context"
	"sync"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/filter"
	"twinegress/internal/event"
	"twinegress/sinks"
	"twinegress/stages/match"
)

// routes is a route table with the chunks that were given it. Only when the
// last of them is dispatched may a sender that the next table lacks be drained.
type routes struct {
	table *match.Table[sinks.Target]
	// users are those chunks, and the table before while that has users: chunks
	// may still be under way with a table that was replaced several times over.
	// Add under Pipeline.mu, and not once the table is replaced.
	users sync.WaitGroup
}

func (p *Pipeline) acquireRoutes() *routes {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.routes.users.Add(1)
	return p.routes
}

// apply makes the running senders those of this set: new ones are started,
// changed ones updated, then the table is swapped, then removed ones drained.
// An event of an endpoint that did not change notices nothing.
//
// Only one apply runs at a time, and nobody else changes the senders. So the
// lock, which every chunk needs, is held for the swap alone.
func (p *Pipeline) apply(set []endpoints.Endpoint) {
	added := p.Log.Info
	if p.routes == nil { // the start: thousands of lines would tell nobody anything
		added = p.Log.Debug
		p.Log.Info("endpoints loaded", zap.Int("endpoints", len(set)))
	}
	senders := make(map[string]*sinks.Sender, len(set))
	given := make([]match.Route[sinks.Target], 0, len(set))
	for _, endpoint := range set {
		s := p.senders[endpoint.ID]
		switch {
		case s == nil:
			s = sinks.NewSender(endpoint, p.Sender, p.open, p.DeadLetters, p.Log)
			added("endpoint added", zap.Object("endpoint", endpoint))
		case !s.Endpoint().Equal(endpoint):
			p.update(s, endpoint)
		}
		senders[endpoint.ID] = s
		given = append(given, p.route(sinks.Target{Sender: s, Slot: int32(len(given))}, endpoint))
	}
	var removed []*sinks.Sender
	for id, s := range p.senders {
		if senders[id] == nil {
			removed = append(removed, s)
		}
	}
	next := &routes{table: match.NewTable(given)}
	p.mu.Lock()
	old := p.routes
	p.routes, p.senders = next, senders
	for _, s := range removed {
		p.leaving[s] = true
	}
	if old != nil {
		next.users.Add(1)
	}
	p.mu.Unlock()
	if old != nil {
		p.background.Go(func() {
			old.users.Wait()
			next.users.Done()
		})
	}
	for _, s := range removed {
		p.remove(s, old)
	}
}

// route is what the endpoint subscribed to. While an endpoint of Event Grid is
// made one that speaks AMQP, and there is no other of that kind, what was
// already decoded has the envelope's id for its correlation id.
func (p *Pipeline) route(target sinks.Target, endpoint endpoints.Endpoint) match.Route[sinks.Target] {
	r := match.Route[sinks.Target]{Target: target, Correlated: endpoint.Type.AMQP()}
	if endpoint.Filter != "" {
		var err error
		if r.Filter, err = filter.Parse(endpoint.Filter); err != nil {
			// The store validates what it hands out. What an endpoint must not
			// get is worse than what it misses, so it gets nothing.
			p.Log.Error("BUG: an endpoint has a filter that can't be read, and gets no events",
				zap.String("endpoint", endpoint.ID), zap.Error(err))
			return r
		}
	}
	for _, name := range endpoint.EventTypes {
		r.Types = append(r.Types, event.TypeOf(name))
	}
	return r
}

// open opens an endpoint's sink by its type: an update may change it.
func (p *Pipeline) open(endpoint endpoints.Endpoint, key sinks.Key) (sinks.Sink, error) {
	return p.Open[endpoint.Type](endpoint, key)
}

func (p *Pipeline) update(s *sinks.Sender, endpoint endpoints.Endpoint) {
	p.Log.Info("endpoint changed", zap.Object("endpoint", endpoint))
	closeOld := s.Update(endpoint)
	if closeOld == nil {
		return
	}
	p.background.Go(func() {
		ctx, cancel := context.WithTimeout(p.enqueueCtx, p.ShutdownTimeout)
		defer cancel()
		if err := closeOld(ctx); err != nil {
			p.Log.Warn("closing an endpoint's old connection failed", zap.String("endpoint", endpoint.ID), zap.Error(err))
		}
	})
}

// remove drains a sender once the last chunk that was given its table is
// dispatched.
func (p *Pipeline) remove(s *sinks.Sender, from *routes) {
	endpoint := s.Endpoint()
	p.Log.Info("endpoint removed: draining", zap.Object("endpoint", endpoint))
	p.background.Go(func() {
		from.users.Wait()
		ctx, cancel := context.WithTimeout(p.enqueueCtx, p.ShutdownTimeout)
		defer cancel()
		if err := s.Remove(ctx); err != nil {
			p.Log.Warn("closing a removed endpoint failed", zap.String("endpoint", endpoint.ID), zap.Error(err))
		}
		counts := s.Snapshot().Counts // nothing is counted any more
		p.mu.Lock()
		delete(p.leaving, s)
		if p.gone[endpoint.Type] == nil {
			p.gone[endpoint.Type] = new(times)
		}
		p.gone[endpoint.Type].add(&counts)
		p.mu.Unlock()
	})
}
