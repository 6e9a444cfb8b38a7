package sinks

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/internal/event"
)

// A process that is held up for longer than a send may take has had no answer
// in time; that is no reason to drop anything.
func TestHeldUpWhileSending(t *testing.T) {
	cases := map[string]struct {
		pauses *Pauses
		want   counts
	}{
		"held up":         {new(Pauses), counts{"delivered": 1}},
		"nobody watches":  {nil, counts{"unreachable": 1}},
		"service is slow": {new(Pauses), counts{"unreachable": 1}},
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				options := defaults
				options.Pauses = test.pauses
				h := newHarness(t, hub, options)
				stop := func() {}
				if test.pauses != nil {
					stop = test.pauses.Watch()
				}
				if name == "held up" {
					stop() // no tick, as while nothing runs
				}
				var answers atomic.Bool
				h.service.respond = func(ctx context.Context, _ string, events []*event.Event) (int, error) {
					if answers.Load() {
						return len(events), nil
					}
					<-ctx.Done()
					return 0, ctx.Err()
				}
				h.put(0, 1)
				advance(options.Timeout + 2*time.Second)
				answers.Store(true)
				if name == "held up" {
					stop = test.pauses.Watch() // ticks again
				}
				advance(options.Timeout)
				stop()
				h.expect(test.want)
				h.finish()
			})
		})
	}
}

// Only what is well over a tick is a pause, and it counts once.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(Pauses)
		if p.Sum() != 0 {
			t.Error("a pause before anyone watched")
		}
		stop := p.Watch()
		advance(time.Minute)
		stop()
		if sum := p.Sum(); sum != 0 {
			t.Errorf("%v of pauses", sum)
		}
		advance(900 * ms)
		if sum := p.Sum(); sum != 0 {
			t.Errorf("a late tick is a pause of %v", sum)
		}
		advance(4100 * ms)
		if sum := p.Sum(); sum != 5*time.Second {
			t.Errorf("a pause of 5 s that isn't over is %v", sum)
		}
		stop = p.Watch()
		advance(time.Minute)
		stop()
		if sum := p.Sum(); sum != 5*time.Second {
			t.Errorf("a pause of 5 s was %v", sum)
		}
	})
}
