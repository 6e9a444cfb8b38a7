package match

import (
	"slices"

	"twinegress/endpoints/filter"
)

// equalityIndex finds conditions that compare one field with a literal for
// equality by the field's value: with ten thousand endpoints, each for the
// events of one space, an event costs one look-up.
type equalityIndex[T comparable] struct {
	slot      int
	byLiteral map[literal][]conditional[T]
}

// literal is a filter's literal as the key of a map.
type literal struct {
	kind   kind
	number float64
	text   string
}

func literalOf(v *value) literal { return literal{v.kind, v.number, string(v.text)} }

// minIndexed is the number of conditions on one field from which an index is
// faster than evaluating each.
const minIndexed = 8

// equality is a condition, or an argument of an And, that can be indexed.
type equality struct {
	slot    int
	literal literal
	arg     int // of the And
}

// buildEqualityIndexes moves the conditions that can be indexed to indexes.
func buildEqualityIndexes[T comparable](all []conditional[T]) (indexes []equalityIndex[T], others []conditional[T]) {
	// A condition with several equalities is indexed by the rarest: the others
	// may be common to all filters.
	rarity := make(map[equality]int)
	anyArg := func(e equality) equality { e.arg = 0; return e }
	for i := range all {
		for _, e := range equalitiesOf(&all[i].condition) {
			rarity[anyArg(e)]++
		}
	}
	best := make(map[int]equality, len(all)) // by index in all
	ofSlot := make(map[int]int)
	for i := range all {
		candidates := equalitiesOf(&all[i].condition)
		if len(candidates) == 0 {
			continue
		}
		best[i] = slices.MinFunc(candidates, func(a, b equality) int { return rarity[anyArg(a)] - rarity[anyArg(b)] })
		ofSlot[best[i].slot]++
	}
	position := make(map[int]int) // in indexes, by slot
	for i, c := range all {
		e, ok := best[i]
		if !ok || ofSlot[e.slot] < minIndexed {
			others = append(others, c)
			continue
		}
		if _, ok := position[e.slot]; !ok {
			position[e.slot] = len(indexes)
			indexes = append(indexes, equalityIndex[T]{e.slot, make(map[literal][]conditional[T])})
		}
		x := &indexes[position[e.slot]]
		x.byLiteral[e.literal] = append(x.byLiteral[e.literal], conditional[T]{c.condition.without(e.arg), c.targets})
	}
	return indexes, others
}

// equalitiesOf returns the equalities that have to hold for c to hold.
func equalitiesOf(c *condition) (found []equality) {
	args := []condition{*c}
	if c.op == filter.And {
		args = c.args
	}
	for i := range args {
		arg := &args[i]
		if arg.op != filter.Equal {
			continue
		}
		switch field, other := &arg.left, &arg.right; {
		case field.slot != noSlot && other.slot == noSlot:
			found = append(found, equality{field.slot, literalOf(&other.literal), i})
		case field.slot == noSlot && other.slot != noSlot:
			found = append(found, equality{other.slot, literalOf(&field.literal), i})
		}
	}
	return found
}

// without returns the rest of a condition of which the argument arg holds.
func (c *condition) without(arg int) condition {
	switch {
	case c.op != filter.And:
		return constant(true)
	case len(c.args) == 2:
		return c.args[1-arg]
	}
	return condition{op: filter.And, args: slices.Delete(slices.Clone(c.args), arg, arg+1)}
}
