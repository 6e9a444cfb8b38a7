// Package match finds the targets of an event: it holds the route table, by
// event type and filter, and the look-up in it. It has no clock, goroutine, I/O
// or lock, and allocates nothing per event.
package match

import (
	"slices"

	"twinegress/endpoints/filter"
	"twinegress/internal/event"
)

// Route is what one target subscribed to.
type Route[T comparable] struct {
	Target T
	Types  []event.Type
	Filter *filter.Expr // which events of these types; nil for all
	// Correlated is true if the target sends an event's CorrelationID.
	Correlated bool
}

// Table maps an event to its targets. It is immutable: a change of the
// endpoints makes a new table and the pipeline swaps it whole, so that all
// events of a chunk use the same one.
type Table[T comparable] struct {
	byType [event.NumTypes]routes[T]
	slots  []slot // the fields that the conditions read

	correlated bool
}

// routes are the targets of one event type.
type routes[T comparable] struct {
	unconditional []T
	// One per condition, not per target: endpoints with the same filter share
	// one evaluation.
	conditional []conditional[T]
	// Conditions that are looked up rather than evaluated one by one.
	equalities []equalityIndex[T]
	ranges     []rangeIndex[T]
}

type conditional[T comparable] struct {
	condition condition
	targets   []T
}

// NewTable builds the table. It compiles a filter once for each of its event
// types, with the type as a constant: a condition on the type alone is decided
// here and costs an event nothing. The targets of one type keep the order of
// the routes, those without a condition before the others.
func NewTable[T comparable](given []Route[T]) *Table[T] {
	t := new(Table[T])
	c := newCompiler()
	type key struct {
		typ    event.Type
		filter string
	}
	position := make(map[key]int) // into byType[typ].conditional
	for _, route := range given {
		t.correlated = t.correlated || route.Correlated
		var text string
		if route.Filter != nil {
			text = route.Filter.String()
		}
		for _, typ := range route.Types {
			r := &t.byType[typ]
			if route.Filter == nil {
				r.unconditional = append(r.unconditional, route.Target)
				continue
			}
			if i, ok := position[key{typ, text}]; ok {
				r.conditional[i].targets = append(r.conditional[i].targets, route.Target)
				continue
			}
			switch condition := c.compile(route.Filter, typ); {
			case condition.op != filter.Const:
				position[key{typ, text}] = len(r.conditional)
				r.conditional = append(r.conditional, conditional[T]{condition, []T{route.Target}})
			case condition.value:
				r.unconditional = append(r.unconditional, route.Target)
			}
		}
	}
	for i := range t.byType {
		r := &t.byType[i]
		r.equalities, r.conditional = buildEqualityIndexes(r.conditional)
		r.ranges, r.conditional = buildRangeIndexes(r.conditional)
		// Types with the same targets share one slice: who groups events by their
		// targets then compares addresses.
		for j := range i {
			if other := t.byType[j].unconditional; slices.Equal(other, r.unconditional) {
				r.unconditional = other
			}
		}
	}
	t.slots = c.slots
	return t
}

// Correlated reports whether a target sends an event's CorrelationID, so that
// Decode has to read it.
func (t *Table[T]) Correlated() bool { return t.correlated }

// Takes reports whether some target takes events of a type, all or some of them.
func (t *Table[T]) Takes(typ event.Type) bool {
	r := &t.byType[typ]
	return len(r.unconditional)+len(r.conditional)+len(r.equalities)+len(r.ranges) > 0
}

// Lookup looks events up in tables. It owns the memory for that and is used by
// one goroutine at a time. The zero Lookup is ready.
type Lookup[T comparable] struct {
	found    []T
	document document
}

// Targets returns the targets of the event. The slice is read-only and valid
// until Reset.
func (l *Lookup[T]) Targets(t *Table[T], ev *event.Event) []T {
	r := &t.byType[ev.Type]
	if len(r.conditional) == 0 && len(r.equalities) == 0 && len(r.ranges) == 0 {
		return r.unconditional
	}
	l.document.open(ev, t.slots)
	start := len(l.found)
	l.found = append(l.found, r.unconditional...)
	l.evaluate(r.conditional)
	for i := range r.equalities {
		x := &r.equalities[i]
		l.evaluate(x.byLiteral[literalOf(l.document.value(x.slot))])
	}
	for i := range r.ranges {
		l.searchRange(&r.ranges[i])
	}
	return l.found[start:len(l.found):len(l.found)]
}

// evaluate appends the targets of the conditions that hold.
func (l *Lookup[T]) evaluate(all []conditional[T]) {
	for i := range all {
		if c := &all[i]; l.document.holds(&c.condition) {
			l.found = append(l.found, c.targets...)
		}
	}
}

// Reset invalidates the slices that Targets returned and releases the events.
func (l *Lookup[T]) Reset() {
	clear(l.found)
	l.found = l.found[:0]
	l.document.reset()
}
