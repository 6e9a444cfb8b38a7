package pipeline

import (
	"context"
	"maps"
	"slices"
	"sync"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/filter"
	"twinegress/internal/event"
	"twinegress/internal/metrics"
	"twinegress/sinks"
	"twinegress/stages/match"
)

// router keeps the senders, and the route table to them, in line with the set
// of endpoints.
type router struct {
	ctx      context.Context // of what runs in the background
	options  *Options
	letters  sinks.DeadLetters // set before the first apply
	recovery *recovery         // the same

	mu       sync.Mutex
	routes   *routes
	senders  map[string]*sinks.Sender
	draining map[*sinks.Sender]bool // removed
	// retiredTotals are of the senders that were removed and drained. Without
	// them a counter would fall as an endpoint is deleted, which Prometheus takes
	// for a restart: it would count again what all others have counted.
	retiredTotals totalsByType

	background sync.WaitGroup // drains of removed senders, closes of old connections
}

type totalsByType map[endpoints.Type]*totals

// totals are histograms of all endpoints of a type.
type totals struct {
	latency, sends metrics.Histogram
	batches        [sinks.BatchBuckets]uint64
	sent           uint64 // events in them
	dropped        [event.NumTypes][event.NumReasons]uint64
}

func (b totalsByType) add(typ endpoints.Type, c *sinks.Counts) {
	t := b[typ]
	if t == nil {
		t = new(totals)
		b[typ] = t
	}
	t.latency.Add(&c.Latency)
	t.sends.Add(&c.Sends)
	for i, n := range c.BatchEvents {
		t.batches[i] += n
	}
	t.sent += c.SentEvents
	for typ := range c.DroppedTypes {
		for r, n := range c.DroppedTypes[typ] {
			t.dropped[typ][r] += n
		}
	}
}

// routes is a route table with the chunks that use it. Only when the last of
// them is dispatched may a sender that the next table lacks be drained.
type routes struct {
	table   *match.Table[sinks.Slot]
	senders []*sinks.Sender        // by slot
	byID    func() []*sinks.Sender // the same, in the order of the endpoints' ids
	slots   func() map[*sinks.Sender]sinks.Slot
	// users are those chunks, and the table before while that has users: chunks
	// may still use a table that was replaced several times over. Add under
	// router.mu, and not once the table is replaced.
	users sync.WaitGroup
}

func newRouter(ctx context.Context, o *Options) *router {
	return &router{
		ctx: ctx, options: o,
		senders:       make(map[string]*sinks.Sender),
		draining:      make(map[*sinks.Sender]bool),
		retiredTotals: make(totalsByType),
	}
}

// acquire returns the routes of this moment. Their users.Done must be called
// when the caller's chunk is dispatched.
func (r *router) acquire() *routes {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routes.users.Add(1)
	return r.routes
}

// apply changes the senders to those of this set: new ones are made, changed ones
// updated, then the table is swapped, then removed ones drained.
// Nothing changes for the events of an endpoint that stays as it is.
//
// Only one apply runs at a time, and nobody else changes the senders. So the
// lock, which every chunk needs, is held for the swap alone.
func (r *router) apply(set []endpoints.Endpoint) {
	log := r.options.Log
	added := log.Info
	if r.routes == nil { // the start: nobody reads thousands of lines
		added = log.Debug
		log.Info("endpoints loaded", zap.Int("endpoints", len(set)))
	}
	senders := make(map[string]*sinks.Sender, len(set))
	given := make([]match.Route[sinks.Slot], 0, len(set))
	bySlot := make([]*sinks.Sender, 0, len(set))
	for _, endpoint := range set {
		s := r.senders[endpoint.ID]
		switch {
		case s == nil:
			s = sinks.NewSender(endpoint, r.options.Sender, r.open, r.letters, log)
			added("endpoint added", zap.Inline(endpoint))
		case !s.Endpoint().Equal(endpoint):
			r.update(s, endpoint)
		}
		senders[endpoint.ID] = s
		given = append(given, r.route(sinks.Slot(len(bySlot)), endpoint))
		bySlot = append(bySlot, s)
	}
	var removed []*sinks.Sender
	for id, s := range r.senders {
		if senders[id] == nil {
			removed = append(removed, s)
		}
	}
	next := &routes{
		table: match.NewTable(given), senders: bySlot,
		byID: sync.OnceValue(func() []*sinks.Sender { return inOrder(senders) }),
		slots: sync.OnceValue(func() map[*sinks.Sender]sinks.Slot {
			slots := make(map[*sinks.Sender]sinks.Slot, len(bySlot))
			for slot, s := range bySlot {
				slots[s] = sinks.Slot(slot)
			}
			return slots
		}),
	}
	r.mu.Lock()
	old := r.routes
	r.routes, r.senders = next, senders
	for _, s := range removed {
		r.draining[s] = true
	}
	if old != nil {
		next.users.Add(1)
	}
	r.mu.Unlock()
	if old != nil {
		r.background.Go(func() {
			old.users.Wait()
			r.recovery.inForce(set) // before the next set's is
			next.users.Done()
		})
	} else {
		r.recovery.inForce(set)
	}
	for _, s := range removed {
		r.remove(s, old)
	}
}

func inOrder(senders map[string]*sinks.Sender) (ordered []*sinks.Sender) {
	for _, id := range slices.Sorted(maps.Keys(senders)) {
		ordered = append(ordered, senders[id])
	}
	return ordered
}

// inForce returns the senders of the endpoints in force, in the order of their ids.
func (r *router) inForce() []*sinks.Sender {
	r.mu.Lock()
	routes := r.routes
	r.mu.Unlock()
	if routes == nil {
		return nil
	}
	return routes.byID()
}

// route returns what the endpoint subscribed to. If an endpoint of Event Grid is
// changed to one of AMQP, and there is no other of that kind, what was already
// decoded has the envelope's id for its correlation id.
func (r *router) route(slot sinks.Slot, endpoint endpoints.Endpoint) match.Route[sinks.Slot] {
	route := match.Route[sinks.Slot]{Target: slot, Correlated: endpoint.Type.AMQP()}
	if endpoint.Filter != "" {
		var err error
		if route.Filter, err = filter.Parse(endpoint.Filter); err != nil {
			// The store validates what it returns. What an endpoint must not get
			// is worse than what it misses, so it gets nothing.
			r.options.Log.Error("BUG: an endpoint has a filter that can't be read, and gets no events",
				endpoint.LogName(), zap.Error(err))
			return route
		}
	}
	for _, name := range endpoint.EventTypes {
		route.Types = append(route.Types, event.TypeOf(name))
	}
	return route
}

// open opens an endpoint's sink by its type: an update may change it.
func (r *router) open(endpoint endpoints.Endpoint, key sinks.Key) (sinks.Sink, error) {
	return r.options.Open[endpoint.Type](endpoint, key)
}

func (r *router) update(s *sinks.Sender, endpoint endpoints.Endpoint) {
	log := r.options.Log
	log.Info("endpoint changed", zap.Inline(endpoint))
	closeOld := s.Update(endpoint)
	if closeOld == nil {
		return
	}
	r.background.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, r.options.ShutdownTimeout)
		defer cancel()
		if err := closeOld(ctx); err != nil {
			log.Warn("closing an endpoint's old connection failed", endpoint.LogName(), zap.Error(err))
		}
	})
}

// remove drains a sender once the last chunk that uses its table is dispatched.
func (r *router) remove(s *sinks.Sender, from *routes) {
	endpoint, log := s.Endpoint(), r.options.Log
	log.Info("endpoint removed: draining", zap.Inline(endpoint))
	r.background.Go(func() {
		from.users.Wait()
		ctx, cancel := context.WithTimeout(r.ctx, r.options.ShutdownTimeout)
		defer cancel()
		if err := s.Remove(ctx); err != nil {
			log.Warn("closing a removed endpoint failed", endpoint.LogName(), zap.Error(err))
		}
		counts := s.Snapshot().Counts // final: all events have their outcome
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.draining, s)
		r.retiredTotals.add(endpoint.Type, &counts)
	})
}

// close drains all senders within ctx, see sinks.CloseAll, and waits for what
// runs in the background. The dispatcher must not use them any more.
func (r *router) close(ctx context.Context) (pending []sinks.Left, err error) {
	r.mu.Lock()
	senders := slices.Collect(maps.Values(r.senders))
	r.mu.Unlock()
	pending, err = sinks.CloseAll(ctx, senders)
	r.background.Wait()
	return pending, err
}

// current returns the senders of this moment. They are not to be changed.
func (r *router) current() []*sinks.Sender {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.routes.senders
}

// drained returns the senders that are being drained.
func (r *router) drained() []*sinks.Sender {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.draining))
}

// sender returns the sender of an id, else the one that is being drained.
func (r *router) sender(id string) *sinks.Sender {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.senders[id]; s != nil {
		return s
	}
	for s := range r.draining {
		if s.Endpoint().ID == id {
			return s
		}
	}
	return nil
}

// all returns the senders, those that are being drained last, and a copy of the
// totals of all that were before.
func (r *router) all() ([]*sinks.Sender, totalsByType) {
	r.mu.Lock()
	defer r.mu.Unlock()
	senders := slices.AppendSeq(make([]*sinks.Sender, 0, len(r.senders)+len(r.draining)), maps.Values(r.senders))
	senders = slices.AppendSeq(senders, maps.Keys(r.draining))
	retired := make(totalsByType)
	for typ, t := range r.retiredTotals {
		copied := *t
		retired[typ] = &copied
	}
	return senders, retired
}
