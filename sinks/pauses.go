package sinks

import (
	"sync"
	"time"
)

const (
	pauseTick = 100 * time.Millisecond
	// A tick that is late by less is what a busy machine does.
	shortestPause = time.Second
)

// Pauses adds up the time in which the whole process was held up: frozen with
// its container, migrated with its virtual machine, stopped, out of CPU. Every
// time limit of a send has passed by the end of that, and connections may be
// lost, and none of it says anything about an endpoint.
type Pauses struct {
	mu   sync.Mutex
	last time.Time // the last tick
	sum  time.Duration
}

// Watch begins to watch; stop ends it.
func (p *Pauses) Watch() (stop func()) {
	p.tick(time.Now())
	done := make(chan struct{})
	var ticking sync.WaitGroup
	ticking.Go(func() {
		ticker := time.NewTicker(pauseTick)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				p.tick(time.Now()) // not the ticker's time, which may be that before a pause
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		ticking.Wait()
	}
}

func (p *Pauses) tick(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sum += p.since(now)
	p.last = now
}

// since is how long the process was held up since the last tick, if it was.
func (p *Pauses) since(now time.Time) time.Duration {
	if late := now.Sub(p.last); !p.last.IsZero() && late >= shortestPause {
		return late
	}
	return 0
}

// Sum is the sum until now. A pause counts before its end is noticed by a
// tick: who is the first to run after it, asks.
func (p *Pauses) Sum() time.Duration {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sum + p.since(time.Now())
}
