package ingest

import "twinegress/internal/event"

// turns is the queue between polling and emitting. Chunks of one partition
// leave in the order they came; partitions take turns. A fetch brings
// thousands of records of one partition in a row, more so the better they are
// compressed: handed on like that, they would fill the one lane that the
// partition has at an endpoint, and all other lanes would wait for it with
// nothing to do.
type turns struct {
	waiting []*tracker // that have chunks, in the order of their turns
}

// push queues a chunk of a partition.
func (q *turns) push(t *tracker, c *event.Chunk) {
	if len(t.queued) == 0 {
		q.waiting = append(q.waiting, t)
	}
	t.queued = append(t.queued, c)
}

// pop gives the first chunk of the partition whose turn it is, and which may
// have it; nil if there is none. It says which lane the chunk takes.
func (q *turns) pop() (*tracker, *event.Chunk) {
	for range len(q.waiting) {
		t := q.waiting[0]
		q.waiting[0] = nil
		q.waiting = q.waiting[1:]
		if !t.place.open() {
			q.waiting = append(q.waiting, t)
			continue
		}
		c := t.queued[0]
		c.Lane = t.place.lane
		t.queued[0] = nil
		if t.queued = t.queued[1:]; len(t.queued) > 0 {
			q.waiting = append(q.waiting, t)
		} else {
			t.queued = nil
		}
		return t, c
	}
	return nil, nil
}
