package catchup

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"twinegress/internal/event"
)

// copyBytes is what an event takes that an endpoint is given: a copy of its own, which
// counts with the chunk that has the bytes.
const copyBytes = 160

// turn is after how many records a pass goes back to endpoints that are further
// behind, though others could go on.
const turn = 64 << 10

// reading is what is read of a partition for the endpoints that are behind in it, in
// passes: from the lowest position on, together with those that are at the same place.
// Who is ahead of that takes part when the pass gets there, and who can't take any more
// drops out. At most one step of it runs at a time.
type reading struct {
	owned  *event.Ownership
	ctx    context.Context //nolint:containedctx // of what the brokers are asked for: ends with the reading
	cancel context.CancelFunc

	giving  sync.Mutex // held while events are given, so that none are once it is dropped
	dropped bool       // changes with giving and Reader.mu held

	// Reader.mu guards these.
	running bool
	ended   bool      // the ownership has, while a step ran
	changed bool      // an endpoint may be able to take something
	due     time.Time // of the next step; zero: none
	scanDue time.Time // when a change is looked at, at the earliest
	wants   int64     // bytes in memory that it waits for, to read on; 0: it doesn't
	idle    time.Time // when the last step ended

	// The rest is the running step's, or Reader.mu guards it.

	// window is what was read last, without a gap: the next offsets of who dropped out
	// of the pass lie in it, so that they are soon served again without another fetch.
	window []piece
	at     int64 // the offset behind the window: where to read on; -1: nowhere yet
	served int   // records of this pass
	// next are the candidates' next offsets as of the last step.
	next  map[Sender]int64
	end   int64 // an offset up to which the brokers are known to have the partition
	empty int   // fetches one after the other that brought nothing
	fails int   // fetches one after the other that failed
	// expired are the endpoints of which the log says that events have expired.
	expired map[string]bool
}

func newReading(ctx context.Context, o *event.Ownership) *reading {
	p := &reading{owned: o, at: -1, changed: true, scanDue: time.Now(), expired: make(map[string]bool)}
	p.ctx, p.cancel = context.WithCancel(ctx)
	return p
}

// piece is a chunk that stands for all offsets from one to before another, also of
// those without a record. The reading has a count of it.
type piece struct {
	chunk    *event.Chunk
	from, to int64
	decoded  bool
}

// candidate is an endpoint that can take events.
type candidate struct {
	Sender
	next int64
	out  bool // of the pass: it takes no more
}

// first returns the lowest offset that needs no fetch.
func (p *reading) first() int64 {
	if len(p.window) > 0 {
		return p.window[0].from
	}
	return p.at
}

// place moves the pass if it has to be elsewhere: none of the candidates, which are in
// the order of their offsets, is where it is, or one further back has waited for long.
// It reports whether that begins another pass.
func (p *reading) place(in []candidate) (begins bool) {
	here, back := false, false
	for i := range in {
		switch next := in[i].next; {
		case next < p.first():
			back = true
		case next <= p.at:
			here = true
		}
	}
	if here && (!back || p.served < turn) {
		return false
	}
	p.clear()
	p.at, p.served = in[0].next, 0
	return true
}

// clear forgets the window.
func (p *reading) clear() { p.forget(len(p.window)) }

// forget forgets the first pieces of the window.
func (p *reading) forget(n int) {
	for _, of := range p.window[:n] {
		of.chunk.Settle(1)
	}
	p.window = slices.Delete(p.window, 0, n)
}

// trim forgets what is before an offset, and what is more than that many bytes.
func (p *reading) trim(before, most int64) {
	bytes := int64(0)
	n := len(p.window)
	for n > 0 && p.window[n-1].to > before {
		if bytes += p.window[n-1].chunk.Bytes(); bytes > most {
			break
		}
		n--
	}
	p.forget(n)
}

// step serves the candidates that the pass has come to, after at most one fetch.
type step struct {
	*Reader
	*reading
	now     time.Time
	lagging int64         // the lowest offset in the window of who can't take more now, but soon
	starved bool          // there was no memory to give more
	scanned time.Duration // to find the candidates
	refused bool          // something may not be given now
}

// next is when a reading's next step is due.
type next struct {
	due   time.Time // zero: when something changes
	wants int64     // or when there is that much memory
}

func (s *step) run() (n next) {
	if s.ctx.Err() != nil {
		return next{}
	}
	in, retryAt := s.candidates()
	n.due = retryAt
	if len(in) == 0 {
		return n
	}
	defer func() {
		switch {
		case s.starved && n.wants == 0:
			n = next{due: retryAt, wants: s.share / 4}
		case s.refused && n.due.IsZero():
			n.due = s.now.Add(paceInterval)
		}
	}()
	if s.place(in) {
		s.passes.Add(1)
	}
	if in = s.join(s.serve(in), false); len(in) == 0 {
		return n
	}
	if slices.ContainsFunc(in, func(c candidate) bool { return c.next == s.at }) {
		return s.readOn(in, n)
	}
	if s.refused { // who is here can't be given anything, maybe for long
		s.clear()
		s.at, s.served = in[0].next, 0
	}
	return next{due: s.now} // they are elsewhere
}

// readOn fetches what is behind the window and serves it. n is when to go on if all
// that are left have dropped out.
func (s *step) readOn(in []candidate, n next) next {
	client, err := s.connected()
	if err != nil {
		return s.failed(err)
	}
	ask, memory, later := s.reserve(client)
	if ask == 0 {
		return later
	}
	at := s.at
	f, err := client.fetch(s.ctx, s.owned, at, ask, s.settled)
	owned := s.received(s.reading, &f, memory)
	switch {
	case !owned || s.ctx.Err() != nil:
		return next{}
	case err == errOutOfRange: //nolint:errorlint // returned as it is
		if err := s.outOfRange(client, in); err != nil {
			return s.failed(err)
		}
		return next{due: s.now}
	case err != nil:
		return s.failed(err)
	}
	s.recovered()
	s.end = max(s.end, f.end)
	if s.at == at { // the end of the partition
		s.empty++
		if in = s.join(in, true); len(in) == 0 {
			return n
		}
		if s.empty > 1 { // what the dispatcher has is not there: a broker lags behind another
			return next{due: s.now.Add(emptyDelay)}
		}
		return next{due: s.now}
	}
	s.empty = 0
	if len(s.join(s.serve(in), false)) > 0 {
		return next{due: s.now}
	}
	return n
}

// candidates returns the senders that can take events, by their next offsets, and when
// the next back-off of another one ends.
func (s *step) candidates() (in []candidate, retryAt time.Time) {
	was := s.next
	s.next = make(map[Sender]int64, len(was))
	began := time.Now()
	defer func() { s.scanned = time.Since(began) }()
	for _, sender := range s.o.Behind.Of(s.owned) {
		offset, ready := sender.Next(s.owned, s.now)
		if ready {
			in = append(in, candidate{Sender: sender, next: offset})
			continue
		}
		if at := sender.RetryAt(); at.After(s.now) {
			retryAt = earlier(retryAt, at)
		} else if offset, is := was[sender]; is && offset >= s.first() {
			s.lagging = min(s.lagging, offset)
			s.next[sender] = offset
		}
	}
	if len(in) == 0 { // some back-offs end without a word
		retryAt = earlier(retryAt, s.now.Add(scanInterval))
	}
	slices.SortFunc(in, func(a, b candidate) int { return cmp.Compare(a.next, b.next) })
	return in, retryAt
}

// serve gives the candidates what the window has for them, and returns those that take
// more.
func (s *step) serve(in []candidate) []candidate {
	for i := range s.window {
		runtime.Gosched() // what is live first: a step takes milliseconds
		if of := &s.window[i]; slices.ContainsFunc(in, of.isNext) && !s.give(of, in) {
			return nil
		}
	}
	in = slices.DeleteFunc(in, func(c candidate) bool {
		s.next[c.Sender] = c.next
		if c.out && c.next >= s.first() {
			s.lagging = min(s.lagging, c.next)
		}
		return c.out
	})
	s.trim(min(s.at, s.lagging), s.windowBytes)
	return in
}

// isNext reports whether a candidate's next offset is in the piece.
func (of *piece) isNext(c candidate) bool { return !c.out && of.from <= c.next && c.next < of.to }

// give gives a piece to the candidates whose next offset is in it. It returns false
// once the reading has ended, or if nothing may be given now.
func (s *step) give(of *piece, in []candidate) (ok bool) {
	c := of.chunk
	prepared, ok := s.prepare(of)
	if !ok {
		s.refused = true
		return false
	}
	defer prepared.Done()
	s.giving.Lock()
	defer s.giving.Unlock()
	if s.dropped {
		return false
	}
	s.served += len(c.Records)
	for i := range in {
		to := &in[i]
		if !of.isNext(*to) {
			continue
		}
		run, known := prepared.Run(to.Sender)
		if !known { // it will be in the next table, or has been in the last
			to.out, s.refused = true, true
			continue
		}
		first, _ := slices.BinarySearchFunc(run, to.next, func(ev *event.Event, at int64) int { return cmp.Compare(ev.Record.Offset, at) })
		run = run[first:]
		if len(run) > 0 && s.outstanding.Load() > 0 && s.inFlight.Load() >= s.share {
			to.out, s.starved = true, true
			continue
		}
		if !to.Give(s.owned, c.Lane, c, run, of.to) {
			to.out = true
			continue
		}
		to.next = of.to
		if len(run) > 0 {
			s.hand(c, len(run))
		}
	}
	return true
}

// prepare decodes a piece, once, and looks it up. What is rejected of it is left: it has
// its dead letter of the shared reading, which has been here, or is still to come.
func (s *step) prepare(of *piece) (Prepared, bool) {
	c := of.chunk
	if len(c.Records) == 0 {
		return Prepared{Run: func(Sender) ([]*event.Event, bool) { return nil, true }, Done: func() {}}, true
	}
	prepared, ok := s.o.Prepare(c, of.decoded)
	of.decoded = of.decoded || ok
	return prepared, ok
}

// join has candidates join the shared stream that have got as far as it has been
// dispatched, or are at the end of the partition, and returns the others. What is
// dispatched isn't known before the first chunk is. Who is beyond what the brokers are
// known to have must not join: the partition may be another one of that name.
func (s *step) join(in []candidate, atEnd bool) []candidate {
	s.giving.Lock()
	defer s.giving.Unlock()
	if s.dropped {
		return nil
	}
	dispatched := s.owned.Dispatched.Load()
	return slices.DeleteFunc(in, func(c candidate) bool {
		return c.next <= s.end && (dispatched > 0 && c.next >= dispatched || atEnd && c.next == s.at) && c.Join(s.owned)
	})
}
