package deadletter

import (
	"context"
	"sync"
)

const (
	// letterBytes is what a letter in a queue takes.
	letterBytes = 160
	// blockLetters is how many letters lie together in a queue.
	blockLetters = 128
)

// queue holds letters in order, without a bound of its own. A slice that grows would
// take up to three times their memory while it does, and all of it until the last
// one is out.
type queue struct {
	ready chan struct{} // has room for one: there are letters

	mu     sync.Mutex
	blocks [][]letter
}

func newQueue() queue { return queue{ready: make(chan struct{}, 1)} }

func (q *queue) push(l letter) {
	q.mu.Lock()
	last := len(q.blocks) - 1
	if last < 0 || len(q.blocks[last]) == blockLetters {
		q.blocks = append(q.blocks, nil)
		last++
	}
	q.blocks[last] = append(q.blocks[last], l)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default: // the signal is there already
	}
}

// drain returns all letters, oldest first.
func (q *queue) drain() (blocks [][]letter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	blocks, q.blocks = q.blocks, nil
	return blocks
}

// each calls of for each letter, in order, until ctx ends, or until last is closed
// and the queue is empty.
func (q *queue) each(ctx context.Context, last <-chan struct{}, of func(letter)) {
	for {
		blocks := q.drain()
		if len(blocks) == 0 {
			select {
			case <-q.ready:
				continue
			case <-last:
			case <-ctx.Done():
			}
			if blocks = q.drain(); len(blocks) == 0 {
				return
			}
		}
		for i := range blocks {
			for _, l := range blocks[i] {
				of(l)
			}
			blocks[i] = nil
		}
	}
}
