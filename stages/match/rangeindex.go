package match

import (
	"bytes"
	"cmp"
	"slices"

	"twinegress/endpoints/filter"
)

// rangeIndex finds conditions that compare one field with a literal by order:
// with ten thousand endpoints, each with a threshold, an event costs as many
// comparisons as conditions hold, and one more on either side.
type rangeIndex[T comparable] struct {
	key rangeKey
	// Each is sorted by literal and strictness, so that none behind the first
	// condition that doesn't hold can hold.
	above, below []rangeCondition[T]
}

// rangeKey is what the conditions of one index share: the field and the kind of
// the literal, since values of different kinds have no order.
type rangeKey struct {
	slot int
	kind kind
}

type rangeCondition[T comparable] struct {
	op      filter.Op // of the event's value and the literal
	literal value
	conditional[T]
}

// flipped maps each ordering comparison to the one with its operands swapped.
var flipped = map[filter.Op]filter.Op{
	filter.Less: filter.Greater, filter.LessOrEqual: filter.GreaterOrEqual,
	filter.Greater: filter.Less, filter.GreaterOrEqual: filter.LessOrEqual,
}

// buildRangeIndexes moves the conditions that can be indexed to indexes.
func buildRangeIndexes[T comparable](all []conditional[T]) (found []rangeIndex[T], others []conditional[T]) {
	count := make(map[rangeKey]int)
	for i := range all {
		if key, _, _, ok := rangeOf[T](&all[i].condition); ok {
			count[key]++
		}
	}
	position := make(map[rangeKey]int) // in found
	for _, c := range all {
		key, l, arg, ok := rangeOf[T](&c.condition)
		if !ok || count[key] < minIndexed {
			others = append(others, c)
			continue
		}
		if _, ok := position[key]; !ok {
			position[key] = len(found)
			found = append(found, rangeIndex[T]{key: key})
		}
		l.conditional = conditional[T]{c.condition.without(arg), c.targets}
		index := &found[position[key]]
		if l.op == filter.Greater || l.op == filter.GreaterOrEqual {
			index.above = append(index.above, l)
		} else {
			index.below = append(index.below, l)
		}
	}
	for i := range found {
		slices.SortStableFunc(found[i].above, func(a, b rangeCondition[T]) int { return cmp.Or(compareLiterals(a, b), strictness(a)-strictness(b)) })
		slices.SortStableFunc(found[i].below, func(a, b rangeCondition[T]) int { return cmp.Or(compareLiterals(b, a), strictness(a)-strictness(b)) })
	}
	return found, others
}

// rangeOf returns the first ordering comparison with a literal that has to hold
// for c to hold, and its index among the arguments of an And.
func rangeOf[T comparable](c *condition) (key rangeKey, l rangeCondition[T], arg int, ok bool) {
	args := []condition{*c}
	if c.op == filter.And {
		args = c.args
	}
	for i := range args {
		field, literal, op := &args[i].left, &args[i].right, args[i].op
		other, ordered := flipped[op]
		if field.slot == noSlot {
			field, literal, op = literal, field, other
		}
		if kind := literal.literal.kind; ordered && field.slot != noSlot && literal.slot == noSlot && (kind == number || kind == text) {
			return rangeKey{field.slot, kind}, rangeCondition[T]{op: op, literal: literal.literal}, i, true
		}
	}
	return rangeKey{}, rangeCondition[T]{}, 0, false
}

func compareLiterals[T comparable](a, b rangeCondition[T]) int {
	return cmp.Or(cmp.Compare(a.literal.number, b.literal.number), bytes.Compare(a.literal.text, b.literal.text))
}

// strictness orders conditions with the same literal: >= and <= hold for more
// values than > and <.
func strictness[T comparable](l rangeCondition[T]) int {
	if l.op == filter.Greater || l.op == filter.Less {
		return 1
	}
	return 0
}

// searchRange appends the targets of the index's conditions that hold.
func (l *Lookup[T]) searchRange(x *rangeIndex[T]) {
	v := l.document.value(x.key.slot)
	if v.kind != x.key.kind {
		return
	}
	for _, side := range [][]rangeCondition[T]{x.above, x.below} {
		for i := range side {
			c := &side[i]
			if !compare(c.op, v, &c.literal) {
				break
			}
			if l.document.holds(&c.condition) {
				l.found = append(l.found, c.targets...)
			}
		}
	}
}
