package match

import (
	"slices"

	"twinegress/endpoints/filter"
)

// index finds the conditions that ask for one value in one place by that
// value, of whatever many there are: ten thousand endpoints, each with the
// events of one space, cost an event one look-up.
type index[T any] struct {
	slot    int
	byValue map[literal][]conditional[T]
}

// literal is a value that a filter can name, fit for a map's key.
type literal struct {
	kind   kind
	number float64
	text   string
}

func literalOf(v *value) literal { return literal{v.kind, v.number, string(v.text)} }

// worthIndex is how many conditions of one place are tried one by one sooner
// than looked up.
const worthIndex = 8

// equality is a condition, or one of an And's, that a value can be looked up by.
type equality struct {
	slot    int
	literal literal
	arg     int // of the And
}

// indexed moves what can be looked up from the conditions to indexes.
func indexed[T any](all []conditional[T]) (indexes []index[T], others []conditional[T]) {
	// Of several equalities the rarest is taken: the others may be what all
	// filters have in common.
	rarity := make(map[equality]int)
	key := func(e equality) equality { e.arg = 0; return e }
	for i := range all {
		for _, e := range equalities(&all[i].condition) {
			rarity[key(e)]++
		}
	}
	best := make(map[int]equality, len(all)) // by place in all
	ofSlot := make(map[int]int)
	for i := range all {
		of := equalities(&all[i].condition)
		if len(of) == 0 {
			continue
		}
		best[i] = slices.MinFunc(of, func(a, b equality) int { return rarity[key(a)] - rarity[key(b)] })
		ofSlot[best[i].slot]++
	}
	at := make(map[int]int) // slot to place in indexes
	for i, c := range all {
		e, ok := best[i]
		if !ok || ofSlot[e.slot] < worthIndex {
			others = append(others, c)
			continue
		}
		if _, ok := at[e.slot]; !ok {
			at[e.slot] = len(indexes)
			indexes = append(indexes, index[T]{e.slot, make(map[literal][]conditional[T])})
		}
		x := &indexes[at[e.slot]]
		x.byValue[e.literal] = append(x.byValue[e.literal], conditional[T]{c.condition.without(e.arg), c.targets})
	}
	return indexes, others
}

// equalities are the conditions of which each has to be met, and can be looked up.
func equalities(c *condition) (found []equality) {
	args := []condition{*c}
	if c.op == filter.And {
		args = c.args
	}
	for i := range args {
		arg := &args[i]
		if arg.op != filter.Equal {
			continue
		}
		switch place, other := &arg.left, &arg.right; {
		case place.slot != noSlot && other.slot == noSlot:
			found = append(found, equality{place.slot, literalOf(&other.literal), i})
		case place.slot == noSlot && other.slot != noSlot:
			found = append(found, equality{other.slot, literalOf(&place.literal), i})
		}
	}
	return found
}

// without is what is left of a condition of which one part is known to be met.
func (c *condition) without(arg int) condition {
	switch {
	case c.op != filter.And:
		return constant(true)
	case len(c.args) == 2:
		return c.args[1-arg]
	}
	return condition{op: filter.And, args: slices.Delete(slices.Clone(c.args), arg, arg+1)}
}
