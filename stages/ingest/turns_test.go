package ingest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"twinegress/internal/event"
)

func TestTurns(t *testing.T) {
	trackers := map[byte]*tracker{}
	for _, name := range []byte("abc") {
		trackers[name] = newTracker(string(name), 0, nil, maxWindow)
	}
	var q turns
	push := func(names string) {
		for i, name := range []byte(names) {
			q.push(trackers[name], &event.Chunk{Topic: string(name), Seq: uint64(i)})
		}
	}
	pop := func(n int) string {
		var got []string
		for range n {
			owner, c := q.pop()
			if c == nil {
				got = append(got, "-")
				continue
			}
			if owner.topic != c.Topic {
				t.Errorf("a chunk of %s came as one of %s", c.Topic, owner.topic)
			}
			got = append(got, fmt.Sprintf("%s%d", c.Topic, c.Seq))
		}
		return strings.Join(got, " ")
	}
	push("aaaabbc") // as a fetch brings them
	if got := pop(4); got != "a0 b4 c6 a1" {
		t.Errorf("partitions don't take turns: %s", got)
	}
	push("cb") // while others wait
	if got := pop(6); got != "b5 a2 c0 b1 a3 -" {
		t.Errorf("partitions don't take turns: %s", got)
	}
}

func TestLanes(t *testing.T) {
	every := func(first, step, n int32) (of []partition) {
		for i := range n {
			of = append(of, partition{"t", first + i*step})
		}
		return of
	}
	tests := map[string]struct {
		added []partition
		want  string // lanes in the order of the partitions
	}{
		"as many as there are lanes": {every(0, 1, 8), "[0 1 2 3 4 5 6 7]"},
		"twice as many":              {every(0, 1, 16), "[0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7]"},
		"all of one remainder":       {every(3, 8, 8), "[3 4 5 6 7 0 1 2]"},
		"every second":               {every(0, 2, 8), "[0 2 4 6 1 3 5 7]"},
		"one":                        {every(13, 1, 1), "[5]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := make(lanes)
			added := slices.Clone(test.added)
			rand.Shuffle(len(added), func(i, j int) { added[i], added[j] = added[j], added[i] })
			l.assign(added, nil)
			var got []int
			for _, p := range test.added {
				got = append(got, l[p])
			}
			if fmt.Sprint(got) != test.want {
				t.Errorf("got %v, want %s", got, test.want)
			}
		})
	}
}

// A partition that comes back has the lane that it had, and those that are
// new go where there is room.
func TestLanesStay(t *testing.T) {
	l := make(lanes)
	a, b, c := partition{"t", 0}, partition{"t", 8}, partition{"t", 16}
	l.assign([]partition{a}, nil)
	l.assign([]partition{b}, map[partition]*tracker{a: nil})
	if l[a] != 0 || l[b] != 1 {
		t.Errorf("lanes are %v", l)
	}
	l.assign([]partition{c}, map[partition]*tracker{b: nil}) // a is another copy's by now
	if l[c] != 0 {
		t.Errorf("16 has lane %d, where 0 is free", l[c])
	}
	l.assign([]partition{a}, map[partition]*tracker{b: nil, c: nil})
	if l[a] != 0 {
		t.Errorf("0 came back to lane %d", l[a])
	}
}
