package match

import (
	"bytes"
	"cmp"
	"slices"

	"twinegress/endpoints/filter"
)

// limits finds the conditions that compare one place with a limit each, of
// whatever many there are: ten thousand endpoints, each with an alarm of its
// own, cost an event those that it sets off, and one more on either side.
type limits[T any] struct {
	at bound
	// Each is sorted so that those come first that are met the soonest: once one
	// isn't met, none behind it is.
	above, below []limit[T]
}

// bound is what limits have in common: the place, and the kind of the literal,
// since values of different kinds have no order.
type bound struct {
	slot int
	kind kind
}

type limit[T any] struct {
	op      filter.Op // of the event's value and the literal
	literal value
	conditional[T]
}

// flipped are the comparisons that have an order, the other way round.
var flipped = map[filter.Op]filter.Op{
	filter.Less: filter.Greater, filter.LessOrEqual: filter.GreaterOrEqual,
	filter.Greater: filter.Less, filter.GreaterOrEqual: filter.LessOrEqual,
}

// limited moves what can be found by a limit from the conditions to limits.
func limited[T any](all []conditional[T]) (found []limits[T], others []conditional[T]) {
	many := make(map[bound]int)
	for i := range all {
		if at, _, _, ok := limitOf[T](&all[i].condition); ok {
			many[at]++
		}
	}
	places := make(map[bound]int) // to the index in found
	for _, c := range all {
		at, l, arg, ok := limitOf[T](&c.condition)
		if !ok || many[at] < worthIndex {
			others = append(others, c)
			continue
		}
		if _, ok := places[at]; !ok {
			places[at] = len(found)
			found = append(found, limits[T]{at: at})
		}
		l.conditional = conditional[T]{c.condition.without(arg), c.targets}
		of := &found[places[at]]
		if l.op == filter.Greater || l.op == filter.GreaterOrEqual {
			of.above = append(of.above, l)
		} else {
			of.below = append(of.below, l)
		}
	}
	for i := range found {
		slices.SortStableFunc(found[i].above, func(a, b limit[T]) int { return cmp.Or(inOrder(a, b), strictness(a)-strictness(b)) })
		slices.SortStableFunc(found[i].below, func(a, b limit[T]) int { return cmp.Or(inOrder(b, a), strictness(a)-strictness(b)) })
	}
	return found, others
}

// limitOf gives a comparison with a limit that the condition is, or the first
// of those that have to be met, as the arg-th of its And.
func limitOf[T any](c *condition) (at bound, l limit[T], arg int, ok bool) {
	args := []condition{*c}
	if c.op == filter.And {
		args = c.args
	}
	for i := range args {
		place, literal, op := &args[i].left, &args[i].right, args[i].op
		other, ordered := flipped[op]
		if place.slot == noSlot {
			place, literal, op = literal, place, other
		}
		if kind := literal.literal.kind; ordered && place.slot != noSlot && literal.slot == noSlot && (kind == number || kind == text) {
			return bound{place.slot, kind}, limit[T]{op: op, literal: literal.literal}, i, true
		}
	}
	return bound{}, limit[T]{}, 0, false
}

func inOrder[T any](a, b limit[T]) int {
	return cmp.Or(cmp.Compare(a.literal.number, b.literal.number), bytes.Compare(a.literal.text, b.literal.text))
}

// strictness orders those with the same literal: >= and <= are met sooner than
// > and <.
func strictness[T any](l limit[T]) int {
	if l.op == filter.Greater || l.op == filter.Less {
		return 1
	}
	return 0
}

// tryLimits adds the targets whose limits the event is beyond.
func (l *Lookup[T]) tryLimits(x *limits[T]) {
	v := l.document.value(x.at.slot)
	if v.kind != x.at.kind {
		return
	}
	for _, side := range [][]limit[T]{x.above, x.below} {
		for i := range side {
			c := &side[i]
			if !compare(c.op, v, &c.literal) {
				break
			}
			if l.document.meets(&c.condition) {
				l.found = append(l.found, c.targets...)
			}
		}
	}
}
