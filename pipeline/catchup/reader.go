package catchup

import (
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"twinegress/internal/event"
)

const (
	// idleTimeout is how long the client is kept while nobody is behind, and
	// windowTimeout how long a window is kept that nobody has come back to.
	idleTimeout   = time.Minute
	windowTimeout = time.Second
	// scanShare bounds what looking for who can take something costs: each look waits
	// until that many times what the last one took have passed.
	scanShare = 10
	// scanInterval is how often it is looked at who can take something without a word of
	// anybody's.
	scanInterval = 10 * time.Second
	// emptyDelay is before a fetch after two that brought nothing, though there is more;
	// minFailDelay and maxFailDelay before one after others that failed.
	emptyDelay   = 100 * time.Millisecond
	minFailDelay = 200 * time.Millisecond
	maxFailDelay = 5 * time.Second
	// minFetchMemory and maxFetchMemory are what one fetch should take in memory.
	minFetchMemory = 256 << 10
	maxFetchMemory = 4 << 20
	// shareOfMemory is which part of what may be in flight is for what is read here.
	shareOfMemory = 4
)

// Reader reads for endpoints that are behind, each from its own position in each
// partition, until they have caught up:
//
//	Run    decides which partition is read next: one goroutine
//	step   one fetch of one partition, decoded and given: several, one a partition
//	pace   how much may be read
//	client fetches
//
// Nothing runs while nobody is behind. Order of locks: reading.giving, then Reader.mu;
// neither is held while the brokers are asked.
type Reader struct {
	o           ReaderOptions
	share       int64 // of memory in flight
	fetchMemory int64 // what a fetch should take
	windowBytes int64 // what a window may keep
	slots       int   // steps at a time
	wake        chan struct{}
	settled     func(*event.Chunk) // settle, bound once
	grew        func(bytes int64)  // grow, bound once
	steps       sync.WaitGroup

	inFlight atomic.Int64 // bytes that are read, and those that a fetch is expected to bring
	hungry   atomic.Bool  // a reading waits for memory
	// outstanding are chunks of which somebody was given something: without one, no
	// memory comes back but that of windows.
	outstanding atomic.Int64
	records     atomic.Int64
	passes      atomic.Int64
	tooLarge    atomic.Int64

	mu       sync.Mutex
	readings map[*event.Ownership]*reading
	running  int
	pace     *pace
	delays   delays
	waits    waiting
	client   *client
	idle     time.Time // since when nobody is behind
}

// NewReader makes a reader. Nothing runs before Run.
func NewReader(o ReaderOptions) *Reader {
	// What all endpoints read together must never find all processors taken by steps.
	slots := max(1, runtime.GOMAXPROCS(0)/2)
	share := max(o.MaxInFlight/shareOfMemory, 1)
	r := &Reader{
		o: o, share: share, slots: slots,
		fetchMemory: min(maxFetchMemory, max(minFetchMemory, share/int64(2*slots))),
		windowBytes: share / int64(2*slots),
		wake:        make(chan struct{}, 1), readings: make(map[*event.Ownership]*reading), pace: newPace(runtime.GOMAXPROCS(0)),
	}
	r.settled, r.grew = r.settle, r.grow
	return r
}

// Run reads until ctx ends.
func (r *Reader) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer r.close()
	defer r.steps.Wait()
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	changed := true
	for {
		timer.Reset(r.plan(ctx, changed))
		changed = false
		select {
		case <-ctx.Done():
			return
		case <-r.o.Behind.Changed():
			changed = true
		case <-r.wake:
		case <-timer.C:
		}
	}
}

// close ends what Run leaves behind.
func (r *Reader) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o, p := range r.readings {
		p.clear()
		if !p.dropped {
			delete(r.readings, o)
		}
	}
	if r.client != nil {
		r.client.close()
		r.client = nil
	}
}

// Drop ends reading in an ownership that is revoked: once it returns no sender is given
// anything more of it.
func (r *Reader) Drop(o *event.Ownership) {
	r.mu.Lock()
	p := r.readings[o]
	if p == nil {
		p = &reading{owned: o, cancel: func() {}, at: -1}
		r.readings[o] = p
	}
	r.mu.Unlock()
	p.cancel()
	p.giving.Lock()
	r.mu.Lock()
	p.dropped = true
	if !p.running {
		p.clear()
	}
	r.mu.Unlock()
	p.giving.Unlock()
}

// Forget must be called once an ownership has ended, after Drop.
func (r *Reader) Forget(o *event.Ownership) {
	r.Drop(o)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch p := r.readings[o]; {
	case p == nil:
	case p.running:
		p.ended = true
	default:
		delete(r.readings, o)
	}
}

// plan starts the steps that are due, and returns for how long nothing is to be done
// unless something changes.
func (r *Reader) plan(ctx context.Context, changed bool) time.Duration {
	owned := r.o.Behind.Owned()
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(ctx, owned)
	if len(owned) == 0 {
		return r.rest(now)
	}
	r.idle = time.Time{}
	if r.pace.due(now) {
		r.pace.look(now, r.load())
	}
	r.hungry.Store(true) // before the bytes are read: free reads it after its change
	inFlight := r.inFlight.Load()
	hungry := false
	var soonest time.Time
	for _, p := range r.readings { // in an order that changes each time: all have their turn
		p.changed = p.changed || changed
		if p.running || p.dropped {
			continue
		}
		due := p.nextStep(r.admits(p.wants, inFlight))
		switch {
		case due.IsZero():
		case due.After(now):
			soonest = earlier(soonest, due)
		case r.running < r.slots:
			r.start(p, now)
			continue
		}
		hungry = hungry || p.wants > 0
	}
	for _, p := range r.readings {
		if p.running || len(p.window) == 0 {
			continue
		}
		if ends := p.idle.Add(windowTimeout); hungry || !ends.After(now) {
			p.clear()
		} else {
			soonest = earlier(soonest, ends)
		}
	}
	r.hungry.Store(hungry)
	if soonest.IsZero() {
		return idleTimeout
	}
	return max(soonest.Sub(now), 0)
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// nextStep returns when the next step is due; zero: it isn't.
func (p *reading) nextStep(memory bool) (due time.Time) {
	due = p.due
	if p.changed || p.wants > 0 && memory {
		due = earlier(due, p.scanDue)
	}
	return due
}

// keep makes readings of the partitions in which somebody is behind, and ends those of
// others. The caller holds mu.
func (r *Reader) keep(ctx context.Context, owned []*event.Ownership) {
	is := make(map[*event.Ownership]bool, len(owned))
	for _, o := range owned {
		is[o] = true
		if r.readings[o] == nil {
			r.readings[o] = newReading(ctx, o)
		}
	}
	for o, p := range r.readings {
		if p.running || is[o] && !p.dropped {
			continue
		}
		p.clear()
		if !p.dropped { // what is dropped is not begun again
			p.cancel()
			delete(r.readings, o)
		}
	}
}

// rest closes the client when nobody has been behind for long. The caller holds mu.
func (r *Reader) rest(now time.Time) time.Duration {
	r.waits = waitsForNothing
	if r.client == nil || r.running > 0 {
		return idleTimeout
	}
	if r.idle.IsZero() {
		r.idle = now
	}
	left := r.idle.Add(idleTimeout).Sub(now)
	if left <= 0 {
		r.client.close()
		r.client = nil
		return idleTimeout
	}
	return left
}

// start starts a reading's step. The caller holds mu.
func (r *Reader) start(p *reading, now time.Time) {
	p.running, p.changed, p.due, p.wants = true, false, time.Time{}, 0
	r.running++
	r.steps.Go(func() {
		s := step{Reader: r, reading: p, now: now, lagging: math.MaxInt64}
		n := s.run()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.running--
		p.running, p.due, p.wants, p.idle = false, n.due, n.wants, time.Now()
		p.scanDue = p.idle.Add(scanShare * s.scanned)
		if n.wants > 0 {
			r.waits = waitsForMemory
		}
		if p.dropped {
			p.clear()
		}
		if p.ended {
			delete(r.readings, p.owned)
		}
		signal(r.wake)
	})
}

// connected returns the client.
func (r *Reader) connected() (*client, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.client == nil {
		c, err := newClient(r.o.Connect, r.o.BatchBytes)
		if err != nil {
			return nil, err
		}
		r.client = c
	}
	return r.client, nil
}

// ReaderStatus is what the reader does.
type ReaderStatus struct {
	Records    int64 // read for endpoints that are behind, since start
	Passes     int64 // over parts of partitions, since start
	TooLarge   int64 // offsets that are passed over, since start
	InFlight   int64 // bytes
	Partitions int   // in which somebody is behind
	// Waiting is why nothing is read at this moment; "": nothing keeps it from that.
	Waiting string
	Rate    float64 // records a second that may be read
}

// Status returns what the reader does now.
func (r *Reader) Status() ReaderStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ReaderStatus{
		Records: r.records.Load(), Passes: r.passes.Load(), TooLarge: r.tooLarge.Load(), InFlight: r.inFlight.Load(),
		Waiting: string(r.waits), Rate: r.pace.rate,
	}
	for _, p := range r.readings {
		if !p.dropped {
			s.Partitions++
		}
	}
	return s
}

// signal leaves a token in a channel with room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
