package deadletter

import (
	"context"
	"sync"
)

// queue holds letters in order, without a bound of its own.
type queue struct {
	ready chan struct{} // has room for one: there are letters

	mu      sync.Mutex
	letters []letter
}

func newQueue() queue { return queue{ready: make(chan struct{}, 1)} }

func (q *queue) push(l letter) {
	q.mu.Lock()
	q.letters = append(q.letters, l)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default: // the signal is there already
	}
}

func (q *queue) drain() (letters []letter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	letters, q.letters = q.letters, nil
	return letters
}

// each calls of for each letter, in order, until ctx ends, or until last is closed
// and the queue is empty.
func (q *queue) each(ctx context.Context, last <-chan struct{}, of func(letter)) {
	for {
		letters := q.drain()
		if len(letters) == 0 {
			select {
			case <-q.ready:
				continue
			case <-last:
			case <-ctx.Done():
			}
			if letters = q.drain(); len(letters) == 0 {
				return
			}
		}
		for i := range letters {
			of(letters[i])
		}
	}
}
