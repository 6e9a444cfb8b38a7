// Package match finds who gets an event: a route table, by event type and
// filter, and the look-up in it. It is clock-free: no goroutine, no I/O, no
// lock, and nothing allocated per event.
package match

import (
	"twinegress/endpoints/filter"
	"twinegress/internal/event"
)

// Route is what a target subscribed to.
type Route[T any] struct {
	Target T
	Types  []event.Type
	Filter *filter.Expr // which events of these types; nil for all
	// Correlated says that the target sends an event's CorrelationID on.
	Correlated bool
}

// Table says for every event who gets it. It is immutable: a change of the
// endpoints makes a new table, and the pipeline swaps it whole, so that all
// events of a chunk see one and the same.
type Table[T any] struct {
	byType [event.NumTypes]routes[T]
	slots  []slot // what the conditions read of an event

	correlated bool
}

// routes are those of one event type.
type routes[T any] struct {
	always []T
	// Per condition, not per target: endpoints with the same filter share one
	// evaluation.
	conditional []conditional[T]
	// Conditions that needn't be tried one by one.
	indexes []index[T]
	limits  []limits[T]
}

type conditional[T any] struct {
	condition condition
	targets   []T
}

// NewTable precomputes the table. A filter is compiled once for each of its
// event types, with the type put in: what depends on nothing else is decided
// here, and costs an event nothing. Targets of one type keep the order they
// are given in, those that get every event of it before the others.
func NewTable[T any](given []Route[T]) *Table[T] {
	t := new(Table[T])
	c := newCompiler()
	type key struct {
		typ    event.Type
		filter string
	}
	index := make(map[key]int) // into byType[typ].conditional
	for _, route := range given {
		t.correlated = t.correlated || route.Correlated
		var text string
		if route.Filter != nil {
			text = route.Filter.String()
		}
		for _, typ := range route.Types {
			r := &t.byType[typ]
			if route.Filter == nil {
				r.always = append(r.always, route.Target)
				continue
			}
			if i, ok := index[key{typ, text}]; ok {
				r.conditional[i].targets = append(r.conditional[i].targets, route.Target)
				continue
			}
			switch condition := c.compile(route.Filter, typ); {
			case condition.op != filter.Const:
				index[key{typ, text}] = len(r.conditional)
				r.conditional = append(r.conditional, conditional[T]{condition, []T{route.Target}})
			case condition.value:
				r.always = append(r.always, route.Target)
			}
		}
	}
	for i := range t.byType {
		r := &t.byType[i]
		r.indexes, r.conditional = indexed(r.conditional)
		r.limits, r.conditional = limited(r.conditional)
	}
	t.slots = c.slots
	return t
}

// Correlated reports whether a target sends an event's CorrelationID on, so
// that Decode has to look for it.
func (t *Table[T]) Correlated() bool { return t.correlated }

// Lookup looks events up in tables. It has the memory that this takes, and so
// belongs to one goroutine at a time. The zero Lookup is ready.
type Lookup[T any] struct {
	found    []T
	document document
}

// Targets gives who gets the event. The slice is read only, and good until Reset.
func (l *Lookup[T]) Targets(t *Table[T], ev *event.Event) []T {
	r := &t.byType[ev.Type]
	if len(r.conditional) == 0 && len(r.indexes) == 0 && len(r.limits) == 0 {
		return r.always
	}
	l.document.open(ev, t.slots)
	start := len(l.found)
	l.found = append(l.found, r.always...)
	l.try(r.conditional)
	for i := range r.indexes {
		x := &r.indexes[i]
		l.try(x.byValue[literalOf(l.document.value(x.slot))])
	}
	for i := range r.limits {
		l.tryLimits(&r.limits[i])
	}
	return l.found[start:len(l.found):len(l.found)]
}

func (l *Lookup[T]) try(all []conditional[T]) {
	for i := range all {
		if c := &all[i]; l.document.meets(&c.condition) {
			l.found = append(l.found, c.targets...)
		}
	}
}

// Reset takes back what Targets gave, and lets go of the events.
func (l *Lookup[T]) Reset() {
	clear(l.found)
	l.found = l.found[:0]
	l.document.reset()
}
