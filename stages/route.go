package stages

import "twinegress/internal/event"

// Table says for every event type who gets its events. It is immutable: a
// change of the endpoints makes a new table, and the pipeline swaps it whole,
// so that all events of a chunk see one and the same.
type Table[T any] struct {
	byType [event.NumTypes][]T
}

// NewTable precomputes the table. types gives the event types that a target
// subscribed to; targets of one type keep the order they are given in.
func NewTable[T any](targets []T, types func(T) []event.Type) *Table[T] {
	t := new(Table[T])
	for _, target := range targets {
		for _, typ := range types(target) {
			t.byType[typ] = append(t.byType[typ], target)
		}
	}
	return t
}

// Lookup gives the targets of a type. The slice is the table's own: read only.
func (t *Table[T]) Lookup(typ event.Type) []T { return t.byType[typ] }
