package ingest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

func TestRoundRobin(t *testing.T) {
	partitions := map[byte]*partition{}
	for _, name := range []byte("abc") {
		partitions[name] = newPartition(topicPartition{topic: string(name)}, new(assignment), nil)
	}
	s := newScheduler()
	push := func(names string) {
		for i, name := range []byte(names) {
			s.push(partitions[name], &event.Chunk{Topic: string(name), Seq: uint64(i)})
		}
	}
	pop := func(n int) string {
		var got []string
		for range n {
			p, c := s.pop()
			if c == nil {
				got = append(got, "-")
				continue
			}
			if p.topic != c.Topic {
				t.Errorf("a chunk of %s came as one of %s", c.Topic, p.topic)
			}
			got = append(got, fmt.Sprintf("%s%d", c.Topic, c.Seq))
		}
		return strings.Join(got, " ")
	}
	push("aaaabbc") // as a fetch brings them
	if got, want := pop(4), "a0 b4 c6 a1"; got != want {
		t.Errorf("partitions don't alternate: %s, want %s", got, want)
	}
	push("cb") // while others wait
	if got, want := pop(6), "b5 a2 c0 b1 a3 -"; got != want {
		t.Errorf("partitions don't alternate: %s, want %s", got, want)
	}
}

// every returns n partitions, with numbers from first on.
func every(first, step, n int32) (ids []topicPartition) {
	for i := range n {
		ids = append(ids, topicPartition{"t", first + i*step})
	}
	return ids
}

func owning(ids ...topicPartition) map[topicPartition]*partition {
	owned := make(map[topicPartition]*partition)
	for _, id := range ids {
		owned[id] = nil
	}
	return owned
}

// next lists the lanes that partitions are to have, in their order.
func (l laneAssigner) nextOf(ids ...topicPartition) string {
	next := make([]int, 0, len(ids))
	for _, id := range ids {
		next = append(next, l[id].next)
	}
	return fmt.Sprint(next)
}

// The first assignment, and what becomes of it when the copy is left with some
// of the partitions.
func TestLanes(t *testing.T) {
	id := func(topic string, number int32) topicPartition { return topicPartition{topic, number} }
	topics := []topicPartition{id("a", 0), id("b", 8), id("c", 0), id("d", 1), id("e", 2), id("f", 3), id("g", 4), id("h", 5), id("i", 6)}
	tests := map[string]struct {
		added []topicPartition
		want  string
		left  []topicPartition
		after string
	}{
		"as many as there are lanes":    {every(0, 1, 8), "[0 1 2 3 4 5 6 7]", nil, "[]"},
		"all of one remainder":          {every(3, 8, 8), "[3 4 5 6 7 0 1 2]", every(3, 8, 1), "[3]"},
		"every second":                  {every(0, 2, 8), "[0 2 4 6 1 3 5 7]", every(0, 2, 4), "[0 2 4 6]"},
		"one":                           {every(13, 1, 1), "[5]", every(13, 1, 1), "[5]"},
		"left with those of one lane":   {every(0, 1, 16), "[0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7]", every(0, 8, 2), "[1 0]"},
		"left with one more than even":  {every(0, 1, 16), "[0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7]", every(0, 1, 9), "[0 1 2 3 4 5 6 7 0]"},
		"left with one of each":         {every(0, 1, 16), "[0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7]", every(4, 1, 8), "[4 5 6 7 0 1 2 3]"},
		"left with eight of 64":         {every(0, 1, 64), "", every(0, 8, 8), "[1 2 3 4 5 6 7 0]"},
		"left with those of three":      {every(0, 1, 24), "", []topicPartition{id("t", 0), id("t", 8), id("t", 16), id("t", 1), id("t", 9), id("t", 2)}, "[3 5 0 4 1 2]"},
		"left with some of many topics": {topics, "", []topicPartition{id("a", 0), id("i", 6)}, "[0 7]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			l := make(laneAssigner)
			added := slices.Clone(test.added)
			rand.Shuffle(len(added), func(i, j int) { added[i], added[j] = added[j], added[i] })
			l.assign(added, nil)
			if got := l.nextOf(test.added...); test.want != "" && got != test.want {
				t.Errorf("lanes %v, want %s", got, test.want)
			}
			before := l.nextOf(test.left...)
			moves := l.rebalance(owning(test.left...), time.Now())
			if got := l.nextOf(test.left...); got != test.after || moves != (got != before) {
				t.Errorf("left with %s of %s, want %s; moves: %t", got, before, test.after, moves)
			}
			if l.rebalance(owning(test.left...), time.Now()) {
				t.Error("it moves again")
			}
		})
	}
}

// What is new gets a lane with room, and what comes back the one that it had.
func TestLanesAreKept(t *testing.T) {
	l := make(laneAssigner)
	a, b, c := topicPartition{"t", 0}, topicPartition{"t", 8}, topicPartition{"t", 16}
	l.assign([]topicPartition{a}, nil)
	l.assign([]topicPartition{b}, owning(a))
	l.assign([]topicPartition{c}, owning(b)) // a is another copy's by now
	l.assign([]topicPartition{a}, owning(b, c))
	if got := l.nextOf(a, b, c); got != "[0 1 0]" {
		t.Errorf("lanes are %s", got)
	}
}

// waker is a consumer that wakes a scheduler.
type waker struct {
	model
	*scheduler
}

func (w *waker) wake() { w.scheduler.wake() }

// A partition moves when nothing of it is in flight in its old lane, and stays
// if that takes too long; meanwhile the others go on. Whoever settles the last
// chunk wakes the scheduler.
func TestMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScheduler()
		w := &waker{scheduler: s}
		ids := every(0, 1, 4)
		owned := make(map[topicPartition]*partition)
		for i, lane := range s.assign(ids, nil) {
			lane.lane, lane.next = 7, 7 // as if the copy were left with those of one lane
			owned[ids[i]] = newPartition(ids[i], lane, w)
		}
		push := func() {
			for _, id := range ids {
				c := event.NewChunk(id.topic, id.number, 0, 0, owned[id].settled)
				owned[id].track(c, 0)
				s.push(owned[id], c)
			}
			s.wake()
		}
		dispatched := make(chan *event.Chunk, 16)
		go func() {
			for p, c := s.next(t.Context()); c != nil; p, c = s.next(t.Context()) {
				p.dispatch()
				dispatched <- c
			}
		}()
		var inFlight [4][]*event.Chunk
		// expect checks which chunks are dispatched now: partition:lane.
		expect := func(what string, want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for len(dispatched) > 0 {
				c := <-dispatched
				inFlight[c.Partition] = append(inFlight[c.Partition], c)
				got = append(got, fmt.Sprint(c.Partition, ":", c.Lane))
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("%s: %v are dispatched, want %v", what, got, want)
			}
		}
		settle := func(partition int) {
			inFlight[partition][0].Settle(1)
			inFlight[partition] = inFlight[partition][1:]
		}
		push()
		expect("at first", "0:7", "1:7", "2:7", "3:7")
		push()
		expect("without a move", "0:7", "1:7", "2:7", "3:7")
		s.rebalance(owned) // 0 moves to lane 0, 1 to lane 1, 2 to lane 2, and 3 stays
		push()
		expect("what stays goes on", "3:7")
		settle(1)
		expect("one chunk is left in the lane")
		settle(1)
		expect("none is left", "1:1")
		settle(0)
		time.Sleep(moveTimeout - 1)
		settle(0)
		expect("none is left, just in time", "0:0")
		time.Sleep(time.Nanosecond)
		expect("too late", "2:7")
	})
}
