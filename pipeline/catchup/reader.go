package catchup

import (
	"context"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/cputime"
	"twinegress/internal/event"
	"twinegress/stages/ingest"
)

const (
	// idleTimeout is how long the client is kept while nobody is behind, and
	// windowTimeout how long a window is kept that nobody has come back to.
	idleTimeout   = time.Minute
	windowTimeout = time.Second
	// scanShare bounds what looking for who can take something costs: each look waits
	// until that many times what the last one took have passed.
	scanShare = 10
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

// Sender is what the reader needs of an endpoint's sender; tests have others.
type Sender interface {
	Endpoint() endpoints.Endpoint
	// Next returns the offset from which it is to be given events, and whether it can
	// take some now.
	Next(o *event.Ownership, now time.Time) (offset int64, ready bool)
	// RetryAt returns when its back-off ends; zero: it doesn't.
	RetryAt() time.Time
	// Give gives it events of a chunk that was read for positions: those of it that are
	// for the endpoint, from its next offset on, which is in the chunk. From then on its
	// next offset is next. It holds the chunk while its events have no outcome.
	Give(o *event.Ownership, lane int, from *event.Chunk, run []*event.Event, next int64) (taken bool)
	// Join has it join the shared stream if it has been given what is dispatched there.
	Join(o *event.Ownership) (joined bool)
	// Skip moves it to an offset, since Kafka doesn't have those before any more.
	Skip(o *event.Ownership, to int64) (offsets int64)
	// Seek moves it to an offset, whichever its own is.
	Seek(o *event.Ownership, to, resume int64)
}

// Behind is who is behind, and where.
type Behind interface {
	Owned() []*event.Ownership
	Of(o *event.Ownership) []Sender
	Changed() <-chan struct{}
}

// Source is what the reader needs of the consumer, which reads beside it.
type Source interface {
	TakeLane(o *event.Ownership) (lane int, ok bool)
	ReturnLane(o *event.Ownership)
	Acquire(bytes int64)
	Return(bytes int64)
	Full() bool
	Status() ingest.Status
}

// Prepared is a chunk that is decoded and looked up.
type Prepared struct {
	// Run returns the chunk's events for a sender, in order; known is false for one that
	// is not in the table.
	Run func(Sender) (run []*event.Event, known bool)
	// Done ends the use of what Run returned.
	Done func()
}

// ReaderOptions are a reader's parts.
type ReaderOptions struct {
	Connect     []kgo.Opt // how the brokers are found
	BatchBytes  int64     // ingest.limits.batchBytes
	MaxInFlight int64     // ingest.maxInFlightBytes
	Behind      Behind
	Source      Source
	// Prepare decodes a chunk, unless that is done, and looks it up in the route table of
	// this moment; false: nothing may be given now. It is called from several goroutines.
	Prepare func(c *event.Chunk, decoded bool) (Prepared, bool)
	Log     *zap.Logger
}

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
	records  atomic.Int64
	passes   atomic.Int64
	tooLarge atomic.Int64

	mu       sync.Mutex
	readings map[*event.Ownership]*reading
	running  int
	pace     *pace
	waits    waiting
	client   *client
	idle     time.Time // since when nobody is behind
}

// NewReader makes a reader. Nothing runs before Run.
func NewReader(o ReaderOptions) *Reader {
	slots := runtime.GOMAXPROCS(0)
	share := max(o.MaxInFlight/shareOfMemory, 1)
	r := &Reader{
		o: o, share: share, slots: slots,
		fetchMemory: min(maxFetchMemory, max(minFetchMemory, share/int64(2*slots))),
		windowBytes: share / int64(2*slots),
		wake:        make(chan struct{}, 1), readings: make(map[*event.Ownership]*reading), pace: newPace(slots),
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
	if p := r.readings[o]; p != nil && !p.running {
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
		due := p.nextStep(inFlight == 0 || p.wants <= r.share-inFlight)
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
			p := &reading{owned: o, at: -1, changed: true, scanDue: time.Now(), expired: make(map[string]bool)}
			p.ctx, p.cancel = context.WithCancel(ctx)
			r.readings[o] = p
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
		if p.dropped {
			p.clear()
		}
		signal(r.wake)
	})
}

// load returns what else this copy does.
func (r *Reader) load() Load {
	status := r.o.Source.Status()
	l := Load{Records: status.Records, Full: r.o.Source.Full(), Lag: -1, CPU: -1}
	if status.Lag != nil {
		l.Lag = *status.Lag
	}
	if cpu, known := cputime.Process(); known {
		l.CPU = cpu
	}
	return l
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

// reserve returns how many bytes may be fetched, and how many in memory are counted for
// them until received is called; none: when to try again.
func (r *Reader) reserve(c *client) (ask int32, memory int64, later next) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var wait time.Duration
	now := time.Now()
	if wait, r.waits = r.pace.wait(now); wait > 0 {
		return 0, 0, next{due: now.Add(wait)}
	}
	inFlight := r.inFlight.Load()
	room := r.share - inFlight
	ask, memory = c.size(min(r.fetchMemory, max(room, 0)))
	if memory > room && inFlight > 0 { // one fetch may take more, alone
		r.waits = waitsForMemory
		return 0, 0, next{wants: memory}
	}
	r.inFlight.Add(memory)
	return ask, memory, next{}
}

// received counts what a fetch has brought instead of what was reserved, and puts it
// behind the window. It returns false if the partition isn't owned any more.
func (r *Reader) received(p *reading, f *fetched, reserved int64) (owned bool) {
	records, bytes := 0, int64(0)
	for _, c := range f.chunks {
		records += len(c.Records)
		bytes += c.Bytes()
	}
	r.inFlight.Add(bytes - reserved)
	r.o.Source.Acquire(bytes)
	r.records.Add(int64(records))
	if f.tooLarge > 0 {
		r.tooLarge.Add(f.tooLarge)
		r.o.Log.Warn("offsets are passed over for endpoints that are behind, too: their batch takes more memory than ingest.limits.batchBytes allows, or can't be unpacked",
			zap.String("topic", p.owned.Topic), zap.Int32("partition", p.owned.Partition),
			zap.Int64("offsets", f.tooLarge), zap.Int64("before", f.next))
	}
	r.mu.Lock()
	r.pace.take(records)
	r.mu.Unlock()
	chunks := f.chunks
	if last := len(chunks) - 1; f.next > p.at && (last < 0 || chunks[last].Last < f.next-1) {
		// What is behind the last record has no event, and endpoints have to get past it.
		chunks = append(chunks, event.NewChunk(p.owned.Topic, p.owned.Partition, 0, 0, r.settled))
		bytes := chunks[last+1].Bytes()
		r.inFlight.Add(bytes)
		r.o.Source.Acquire(bytes)
		chunks[last+1].Owned, chunks[last+1].Last = p.owned, f.next-1
	}
	for i, c := range chunks {
		lane, ok := r.o.Source.TakeLane(p.owned)
		if !ok {
			for _, c := range chunks[i:] {
				r.free(c)
			}
			p.cancel()
			return false
		}
		c.Lane, c.Grew, c.First = lane, r.grew, p.at
		p.window = append(p.window, piece{chunk: c, from: p.at, to: c.Last + 1})
		p.at = c.Last + 1
	}
	return true
}

// grow counts what decoding has added to a chunk.
func (r *Reader) grow(bytes int64) {
	r.inFlight.Add(bytes)
	r.o.Source.Acquire(bytes)
}

// settle is called by a chunk when all that were given events of it have an outcome for
// each, and the window doesn't have it any more.
func (r *Reader) settle(c *event.Chunk) {
	o := c.Owned
	r.free(c)
	r.o.Source.ReturnLane(o)
}

func (r *Reader) free(c *event.Chunk) {
	bytes := c.Bytes()
	c.Free()
	r.inFlight.Add(-bytes)
	r.o.Source.Return(bytes)
	if r.hungry.Load() {
		signal(r.wake)
	}
}

// failed returns when to fetch again, and says that a partition can't be read when that
// begins.
func (s *step) failed(err error) next {
	if s.ctx.Err() != nil {
		return next{}
	}
	if s.fails++; s.fails == 1 {
		s.o.Log.Warn("reading for endpoints that are behind fails, and is tried again until it succeeds",
			zap.String("topic", s.owned.Topic), zap.Int32("partition", s.owned.Partition), zap.Int64("offset", s.at), zap.Error(err))
	}
	delay := time.Duration(math.Min(float64(maxFailDelay), float64(minFailDelay)*math.Pow(2, float64(s.fails-1))))
	return next{due: time.Now().Add(delay)}
}

func (s *step) recovered() {
	if s.fails > 0 {
		s.o.Log.Info("reading for endpoints that are behind succeeds again",
			zap.String("topic", s.owned.Topic), zap.Int32("partition", s.owned.Partition))
		s.fails = 0
	}
}

// outOfRange moves the candidates that are where the brokers have nothing.
func (s *step) outOfRange(c *client, in []candidate) error {
	start, end, err := c.extent(s.ctx, s.owned)
	if err != nil {
		return err
	}
	s.giving.Lock()
	defer s.giving.Unlock()
	if s.dropped {
		return nil
	}
	err = errOutOfRange // the brokers have it, but don't know it yet or any more: after an election
	for _, to := range in {
		fields := []zap.Field{
			to.Endpoint().LogName(), zap.String("topic", s.owned.Topic), zap.Int32("partition", s.owned.Partition),
			zap.Int64("offset", to.next), zap.Int64("start", start), zap.Int64("end", end),
		}
		switch {
		case to.next < start:
			err = nil
			skipped := to.Skip(s.owned, start)
			if id := to.Endpoint().ID; !s.expired[id] {
				s.expired[id] = true
				s.o.Log.Error("events have left the topic before an endpoint that is behind got them: it goes on with the oldest that there is",
					append(fields, zap.Int64("skipped", skipped))...)
			}
		case to.next > end:
			err = nil
			to.Seek(s.owned, start, -1)
			s.o.Log.Error("an endpoint's position is behind the end of the partition, which has lost events or was made anew: it goes on with the oldest that there is",
				fields...)
		}
	}
	return err
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
