package ingest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

func every(first, step, n int32) (of []topicPartition) {
	for i := range n {
		of = append(of, topicPartition{"t", first + i*step})
	}
	return of
}

func owning(all []topicPartition) map[topicPartition]*partition {
	owned := make(map[topicPartition]*partition)
	for _, p := range all {
		owned[p] = nil
	}
	return owned
}

// of gives where partitions are to be, in their order.
func (l laneAssigner) of(all []topicPartition) (next []int) {
	for _, p := range all {
		next = append(next, l[p].next)
	}
	return next
}

func TestLanes(t *testing.T) {
	tests := map[string]struct {
		added []topicPartition
		want  string
	}{
		"as many as there are lanes": {every(0, 1, 8), "[0 1 2 3 4 5 6 7]"},
		"twice as many":              {every(0, 1, 16), "[0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7]"},
		"all of one remainder":       {every(3, 8, 8), "[3 4 5 6 7 0 1 2]"},
		"every second":               {every(0, 2, 8), "[0 2 4 6 1 3 5 7]"},
		"one":                        {every(13, 1, 1), "[5]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := make(laneAssigner)
			added := slices.Clone(test.added)
			rand.Shuffle(len(added), func(i, j int) { added[i], added[j] = added[j], added[i] })
			l.assign(added, nil)
			if got := fmt.Sprint(l.of(test.added)); got != test.want {
				t.Errorf("got %v, want %s", got, test.want)
			}
		})
	}
}

// What is new goes where there is room, and what comes back to where it was.
func TestLanesAreKept(t *testing.T) {
	l := make(laneAssigner)
	a, b, c := topicPartition{"t", 0}, topicPartition{"t", 8}, topicPartition{"t", 16}
	l.assign([]topicPartition{a}, nil)
	l.assign([]topicPartition{b}, owning([]topicPartition{a}))
	l.assign([]topicPartition{c}, owning([]topicPartition{b})) // a is another copy's by now
	l.assign([]topicPartition{a}, owning([]topicPartition{b, c}))
	if got := fmt.Sprint(l.of([]topicPartition{a, b, c})); got != "[0 1 0]" {
		t.Errorf("lanes are %s", got)
	}
}

// A copy that was given many partitions and is left with some of them spreads these.
func TestLanesAreSpread(t *testing.T) {
	tests := map[string]struct {
		had, left []topicPartition
		want      string
	}{
		"all in one lane":    {every(0, 1, 64), every(0, 8, 8), "[1 2 3 4 5 6 7 0]"},
		"in three lanes":     {every(0, 1, 24), []topicPartition{{"t", 0}, {"t", 8}, {"t", 16}, {"t", 1}, {"t", 9}, {"t", 2}}, "[3 5 0 4 1 2]"},
		"one more than even": {every(0, 1, 16), every(0, 1, 9), "[0 1 2 3 4 5 6 7 0]"},
		"even":               {every(0, 1, 16), every(4, 1, 8), "[4 5 6 7 0 1 2 3]"},
		"two topics":         {[]topicPartition{{"a", 0}, {"b", 8}, {"c", 0}, {"d", 1}, {"e", 2}, {"f", 3}, {"g", 4}, {"h", 5}, {"i", 6}}, []topicPartition{{"a", 0}, {"i", 6}}, "[0 7]"},
		"nothing":            {every(0, 1, 8), nil, "[]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := make(laneAssigner)
			l.assign(slices.Clone(test.had), nil)
			before := fmt.Sprint(l.of(test.left))
			moves := l.rebalance(owning(test.left), time.Now())
			if got := fmt.Sprint(l.of(test.left)); got != test.want || moves != (got != before) {
				t.Errorf("got %s, want %s; before %s, moves: %t", got, test.want, before, moves)
			}
			if l.rebalance(owning(test.left), time.Now()) {
				t.Error("it moves again")
			}
		})
	}
}

// A partition moves when nothing is left in its lane, stays if that takes too
// long, and whoever resolves the last chunk knows that it is waited for.
func TestPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &assignment{lane: 1, next: 1}
		expect := func(open bool, lane int) {
			t.Helper()
			if got := p.ready(); got != open || p.lane != lane {
				t.Errorf("open %t in lane %d, want %t in %d", got, p.lane, open, lane)
			}
		}
		move := func(to int) { p.next, p.until = to, time.Now().Add(moveTimeout) }
		expect(true, 1)
		p.inFlight.Add(2)
		expect(true, 1)
		move(2)
		expect(false, 1)
		if p.settled() {
			t.Error("woken with one left")
		}
		expect(false, 1)
		if !p.settled() {
			t.Error("not woken")
		}
		expect(true, 2)

		p.inFlight.Add(1)
		if p.settled() {
			t.Error("woken, without a move")
		}
		p.inFlight.Add(1)
		move(3)
		time.Sleep(moveTimeout - 1)
		expect(false, 2)
		time.Sleep(time.Nanosecond)
		expect(true, 2)
		if p.settled() {
			t.Error("woken after the move was given up")
		}
		expect(true, 2)
	})
}

// While a partition waits for its move, the others go on; a chunk that was in
// its old lane is over before the first one in the new lane is handed out.
func TestMove(t *testing.T) {
	const partitions = 4
	k := broker(t, partitions)
	s := consume(t, ingestConfig(k), false)
	eventually(t, "the partitions are ours", func() bool { return len(s.Status().Partitions) == partitions })
	produce(t, k, partitions, 1, 10)
	eventually(t, "one chunk each", func() bool { return s.count() == partitions })

	s.partitions.mu.Lock()
	for _, at := range s.scheduler.lanes { // as if the copy were left with those of one lane
		at.lane, at.next = 7, 7
	}
	s.scheduler.rebalance(s.partitions.owned)
	s.partitions.mu.Unlock()
	// 0 goes to lane 0, 1 to lane 1, 2 to lane 2, and 3 stays.
	produce(t, k, partitions, 1, 10)
	lanes := func() map[int32]int {
		s.mu.Lock()
		defer s.mu.Unlock()
		got := make(map[int32]int)
		for _, c := range s.held {
			if c.First == 1 {
				got[c.Partition] = c.Lane
			}
		}
		return got
	}
	eventually(t, "what stays goes on, alone", func() bool { return fmt.Sprint(lanes()) == "map[3:7]" })
	first := func(of int32) func(c *event.Chunk) bool {
		return func(c *event.Chunk) bool { return c.Partition == of && c.First == 0 }
	}
	s.settle(first(1))
	eventually(t, "what is settled moves", func() bool { return fmt.Sprint(lanes()) == "map[1:1 3:7]" })
	s.settle(first(0))
	eventually(t, "what is settled moves", func() bool { return fmt.Sprint(lanes()) == "map[0:0 1:1 3:7]" })
	eventually(t, "what isn't stays after a while", func() bool { return fmt.Sprint(lanes()) == "map[0:0 1:1 2:7 3:7]" })
	s.settle(all)
	eventually(t, "everything is committed", func() bool { return s.Status().Lag == 0 })
}
