package fleet

import (
	"fmt"
	"slices"
	"strings"
)

// sameCause is how many endpoints of a host have the same trouble before it is one.
const sameCause = 3

// cause is what is wrong with an endpoint, in the parts that are put together anew
// where several endpoints have the same.
type cause struct {
	host    string
	what    string
	because string
	group   string // because, without what differs between endpoints
	cost    cost
}

// cost is what a trouble costs; 0 is not said.
type cost struct {
	dropped uint64 // in the last minute
	waiting int
	oldest  float64 // of those that wait, in seconds
	offsets int64   // of a backlog
}

func (c cost) String() string {
	switch {
	case c.waiting > 0:
		return fmt.Sprintf(": %d wait, the oldest for %.0f s", c.waiting, c.oldest)
	case c.dropped > 0:
		return fmt.Sprintf(" (%d in the last minute)", c.dropped)
	case c.offsets > 0:
		return fmt.Sprintf(" (%d offsets)", c.offsets)
	}
	return ""
}

func (c cost) plus(o cost) cost {
	return cost{c.dropped + o.dropped, c.waiting + o.waiting, max(c.oldest, o.oldest), c.offsets + o.offsets}
}

// generic returns an error without what differs between endpoints with the same cause.
func generic(text string, e *EndpointSums) string {
	if at := strings.LastIndex(text, " (partition "); at >= 0 {
		text = text[:at]
	}
	for _, own := range []string{e.Path, e.Name} {
		if own != "" {
			text = strings.ReplaceAll(text, own, "…")
		}
	}
	return text
}

// grouped makes one of the troubles that many endpoints of a host have for the same
// cause: of a namespace that is down, the first line says all.
func grouped(all []Trouble) (found []Trouble) {
	type key struct{ host, what, group string }
	keyOf := func(t *Trouble) key { return key{t.subject.host, t.subject.what, t.subject.group} }
	groups := make(map[key][]int)
	for i := range all {
		k := keyOf(&all[i])
		groups[k] = append(groups[k], i)
	}
	for i := range all {
		k := keyOf(&all[i])
		same := groups[k]
		switch {
		case k.host == "" || len(same) < sameCause:
			found = append(found, all[i])
		case same[0] == i:
			found = append(found, together(all, same))
		}
	}
	// What concerns most endpoints first.
	slices.SortStableFunc(found, func(a, b Trouble) int { return len(groups[keyOf(&b)]) - len(groups[keyOf(&a)]) })
	return found
}

func together(all []Trouble, same []int) Trouble {
	t := all[same[0]]
	because, sum := t.subject.because, cost{}
	t.Action, _, _ = strings.Cut(t.Action, "; to try")
	t.Endpoint, t.Name, t.Copies = "", "", nil
	for _, i := range same {
		one := &all[i]
		sum = sum.plus(one.subject.cost)
		if one.subject.because != because {
			because = t.subject.group
		}
		for _, id := range one.Copies {
			if !slices.Contains(t.Copies, id) {
				t.Copies = append(t.Copies, id)
			}
		}
		if since := one.Since; since != nil && (t.Since == nil || since.Before(*t.Since)) {
			t.Since = since
		}
	}
	t.What = fmt.Sprintf("Each of %d endpoints at %s %s%s%s", len(same), t.subject.host, t.subject.what, sum, because)
	slices.Sort(t.Copies)
	return t
}
