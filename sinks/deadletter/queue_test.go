package deadletter

import (
	"runtime"
	"strconv"
	"testing"

	"twinegress/internal/event"
	"twinegress/internal/heaptest"
)

// A letter that waits counts as what it takes, until its event's chunk is settled:
// twenty endpoints that drop an event put twenty.
func TestLettersThatWaitCount(t *testing.T) {
	const letters = 100_000
	ev, settled := newLetter(nil, []byte("v"), event.NoIndex)
	grew := int64(0)
	ev.Chunk.Grew = func(bytes int64) { grew += bytes }
	ev.Chunk.Hold(letters)
	before := ev.Chunk.Bytes()
	topic := &Topic{queued: newQueue()}
	topic.Put(ev, event.Rejected, "why", nil)
	empty := heaptest.Bytes()
	for range letters - 1 {
		topic.Put(ev, event.Rejected, "why", nil)
	}
	held := heaptest.Bytes() - empty
	counted := ev.Chunk.Bytes() - before
	if counted < held || counted > held*3/2 || counted != grew || counted != ev.Chunk.Grown() {
		t.Errorf("%d bytes are counted and %d told, %d are held", counted, grew, held)
	}
	ev.Chunk.Settle(letters)
	if settled.Load() > 0 {
		t.Error("settled before the caller's own count")
	}
	runtime.KeepAlive(topic)
}

// Letters come out in their order, those too that are queued while others come out.
func TestQueueKeepsTheOrder(t *testing.T) {
	const letters = 3*blockLetters + 1
	q := newQueue()
	push := func(from, to int) {
		for i := from; i < to; i++ {
			q.push(letter{detail: strconv.Itoa(i)})
		}
	}
	push(0, letters)
	last, next := make(chan struct{}), 0
	close(last)
	q.each(t.Context(), last, func(l letter) {
		if l.detail != strconv.Itoa(next) {
			t.Fatalf("letter %s in place of %d", l.detail, next)
		}
		if next++; next == blockLetters+1 {
			push(letters, letters+10)
		}
	})
	if next != letters+10 {
		t.Errorf("%d letters came out of %d", next, letters+10)
	}
}
