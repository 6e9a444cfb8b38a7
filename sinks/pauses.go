package sinks

import (
	"sync"
	"time"
)

const (
	pauseTick = 100 * time.Millisecond
	// shortestPause is more than a tick is late by on a busy machine.
	shortestPause = time.Second
)

// Pauses adds up the time in which the whole process was held up: frozen with
// its container, migrated with its virtual machine, stopped, out of CPU. By the
// end of a pause every time limit of a send has passed and connections may be
// lost, for which no endpoint is to blame.
type Pauses struct {
	mu   sync.Mutex
	last time.Time // the last tick
	sum  time.Duration
}

// Watch measures pauses until stop is called.
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

// since returns how long the process was held up since the last tick, if it was.
func (p *Pauses) since(now time.Time) time.Duration {
	if late := now.Sub(p.last); !p.last.IsZero() && late >= shortestPause {
		return late
	}
	return 0
}

// Sum returns the sum until now. It includes a pause that no tick has noticed
// yet: the caller may be the first to run after it.
func (p *Pauses) Sum() time.Duration {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sum + p.since(time.Now())
}
