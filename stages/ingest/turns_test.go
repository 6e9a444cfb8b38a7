package ingest

import (
	"fmt"
	"strings"
	"testing"

	"twinegress/internal/event"
)

func TestTurns(t *testing.T) {
	trackers := map[byte]*partition{}
	for _, name := range []byte("abc") {
		trackers[name] = newPartition(topicPartition{topic: string(name)}, new(assignment), nil)
	}
	q := newScheduler()
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
