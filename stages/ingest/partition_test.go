package ingest

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/event"
)

// model is a consumer of one partition. It states in the plainest way what the
// partition must mark, pause and release, and fails the test otherwise.
type model struct {
	t         testing.TB
	partition *partition

	chunks   []*modelChunk
	next     int64 // the offset after all that was tracked or skipped
	skipped  int64 // the offset after the last one that was skipped before the first chunk
	over     bool  // nothing may be marked any more
	marked   int64 // last mark
	marks    int
	released int64
	paused   bool
	pauses   int
}

type modelChunk struct {
	*event.Chunk
	last       int64
	bytes      int64
	dispatched bool
	resolved   bool
}

func newModel(t testing.TB) *model {
	m := &model{t: t}
	m.partition = newPartition(topicPartition{"twins", 3}, new(assignment), m)
	return m
}

// check checks that the mark is the contiguous prefix, never goes back, and
// never comes after the end.
func (m *model) check() {
	m.t.Helper()
	m.partition.mu.Lock()
	offset, epoch := max(0, m.partition.marked.Offset), m.partition.marked.Epoch
	m.partition.mu.Unlock()
	switch {
	case offset == m.marked:
		return
	case m.over:
		m.t.Fatalf("marked %d after the partition was released", offset)
	case offset < m.marked:
		m.t.Fatalf("marked %d after %d", offset, m.marked)
	case offset != m.watermark():
		m.t.Fatalf("marked %d, want %d", offset, m.watermark())
	case epoch != int32(offset%7):
		m.t.Fatalf("marked %d with the epoch %d", offset, epoch)
	}
	m.marked = offset
	m.marks++
}

func (m *model) watermark() (offset int64) {
	offset = m.skipped
	for _, c := range m.chunks {
		if !c.resolved {
			break
		}
		offset = c.last + 1
	}
	return offset
}

func (m *model) pause(topicPartition)   { m.setPaused(true) }
func (m *model) resume(topicPartition)  { m.setPaused(false) }
func (m *model) acquire(int64)          {}
func (m *model) grow(int64)             {}
func (m *model) release(bytes, _ int64) { m.released += bytes }
func (m *model) wake()                  {}

func (m *model) setPaused(paused bool) {
	if paused == m.paused {
		m.t.Fatalf("paused: %v, twice", paused)
	}
	m.paused = paused
	m.pauses++
}

// track adds a chunk of that many records, behind a gap such as compaction leaves.
func (m *model) track(records int, gap int64) *modelChunk {
	first := m.next + gap
	m.next = first + int64(records)
	c := &modelChunk{Chunk: event.NewChunk("twins", 3, records, 0, m.partition.settled), last: m.next - 1}
	for o := first; o < m.next; o++ {
		c.Add(o, 0, int32((o+1)%7), nil, []byte("x"))
	}
	c.bytes = c.Bytes()
	m.partition.track(c.Chunk, m.next)
	m.chunks = append(m.chunks, c)
	return c
}

// skip passes over an offset that has no event.
func (m *model) skip() {
	m.t.Helper()
	m.next++
	if n := len(m.chunks); n > 0 {
		m.chunks[n-1].last = m.next - 1 // goes with it
	} else {
		m.skipped = m.next
	}
	m.expectMark(func() { m.partition.skip(m.next-1, int32(m.next%7), m.next) })
}

func (m *model) dispatch(c *modelChunk) {
	m.t.Helper()
	c.dispatched = m.partition.dispatch()
	if c.dispatched == m.over {
		m.t.Fatalf("dispatched: %v, released: %v", c.dispatched, m.over)
	}
}

func (m *model) resolve(c *modelChunk) {
	m.t.Helper()
	c.resolved = true
	before := m.released
	m.expectMark(func() { c.Settle(1) })
	if m.released != before+c.bytes {
		m.t.Fatalf("released %d bytes, want %d", m.released-before, c.bytes)
	}
}

// expectMark checks that f marks if it moved the watermark, and only then.
func (m *model) expectMark(f func()) {
	m.t.Helper()
	marks, want := m.marks, !m.over && m.watermark() > m.marked
	f()
	m.check()
	if (m.marks > marks) != want {
		m.t.Fatalf("marked %d times, want a mark: %v", m.marks-marks, want)
	}
}

func (m *model) lose() {
	m.over = true
	m.partition.release()
}

// drain has no time left: what isn't resolved is released.
func (m *model) drain() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m.partition.drain(ctx)
	m.over = true
}

// play lets the bytes decide what happens next. Chunks are dispatched in order,
// and resolved in any.
func play(t testing.TB, steps []byte) {
	m := newModel(t)
	var next int                      // to be dispatched
	var inFlight, freed []*modelChunk // freed: not dispatched any more
	for i := 0; i+1 < len(steps); i += 2 {
		op, arg := steps[i]%16, int(steps[i+1])
		switch {
		case op < 5:
			m.track(1+arg%5, int64(arg/50))
		case op < 6:
			m.skip()
		case op < 10:
			if next < len(m.chunks) {
				c := m.chunks[next]
				next++
				m.dispatch(c)
				if c.dispatched {
					inFlight = append(inFlight, c)
				} else {
					freed = append(freed, c)
				}
			}
		case op < 15:
			if len(inFlight) > 0 {
				i := arg % len(inFlight)
				c := inFlight[i]
				inFlight = append(inFlight[:i], inFlight[i+1:]...)
				m.resolve(c)
			}
		case arg < 8:
			m.lose()
		case arg < 16:
			m.drain()
		}
	}
	rand.Shuffle(len(inFlight), func(i, j int) { inFlight[i], inFlight[j] = inFlight[j], inFlight[i] })
	for _, c := range inFlight {
		m.resolve(c)
	}
	for _, c := range freed {
		c.Free()
	}
	lag, _ := m.partition.lag()
	if done := next == len(m.chunks) && len(freed) == 0; lag < 0 || done && lag != 0 {
		t.Fatalf("in the end the lag is %d", lag)
	}
}

func TestPartitionAgainstModel(t *testing.T) {
	for range 3000 {
		steps := make([]byte, rand.IntN(400))
		for i := range steps {
			steps[i] = byte(rand.Uint32())
		}
		play(t, steps)
	}
}

// The seeds are the mistakes that lose events, each in its shortest form: a mark
// behind an unresolved chunk, and one after the partition was lost or drained.
func FuzzPartition(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 6, 0, 6, 0, 10, 1, 10, 0})
	f.Add([]byte{0, 1, 0, 2, 6, 0, 6, 0, 15, 0, 10, 1, 10, 0})
	f.Add([]byte{0, 1, 0, 2, 6, 0, 15, 9, 6, 0, 10, 0})
	f.Fuzz(func(t *testing.T, steps []byte) { play(t, steps) })
}

// A drain waits for chunks in flight, marks them, and dispatches nothing more.
func TestDrain(t *testing.T) {
	tests := map[string]struct {
		resolved time.Duration // the chunk in flight; 0: never
		took     time.Duration
		marked   int64
	}{
		"in time":  {2 * time.Second, 2 * time.Second, 3},
		"too late": {20 * time.Second, 10 * time.Second, 0},
		"never":    {0, 10 * time.Second, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t)
				a, b := m.track(3, 0), m.track(3, 0)
				m.dispatch(a)
				begun := time.Now()
				var took time.Duration
				var over bool
				go func() {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					m.partition.drain(ctx)
					took, over = time.Since(begun), true
				}()
				synctest.Wait()
				if m.partition.dispatch() {
					t.Error("a chunk is dispatched while draining")
				}
				b.Free()
				if test.resolved > 0 {
					time.Sleep(test.resolved)
					synctest.Wait()
					m.over = over
					m.resolve(a)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if took != test.took || m.marked != test.marked {
					t.Errorf("took %v and marked %d, want %v and %d", took, m.marked, test.took, test.marked)
				}
			})
		})
	}
	t.Run("nothing in flight", func(t *testing.T) {
		m := newModel(t)
		m.track(1, 0)
		m.partition.drain(t.Context()) // returns at once
	})
}

// What is known of a partition by the group's answer, its start, its end and
// its records, in any order: the lag, what is marked, and what is resolved.
func TestPosition(t *testing.T) {
	committed := func(offset int64) func(*partition) {
		return func(p *partition) { p.setCommitted(commitment{mark: kgo.EpochOffset{Offset: offset}}) }
	}
	start := func(p *partition) { p.setStart(kgo.EpochOffset{Epoch: 5, Offset: 40}) }
	end := func(p *partition) { p.setEnd(100) }
	control := func(p *partition) { p.skip(89, 0, 90) }
	tests := map[string]struct {
		steps              []func(*partition)
		lag, mark, resolve int64
		uncommitted        bool
	}{
		"not answered":             {[]func(*partition){end}, 0, -1, 0, false},
		"start before the answer":  {[]func(*partition){end, start}, 0, -1, 0, false},
		"committed":                {[]func(*partition){end, committed(60)}, 40, -1, 0, false},
		"nothing committed":        {[]func(*partition){committed(-1), end}, 0, -1, 0, true},
		"start after the answer":   {[]func(*partition){committed(-1), start, end}, 60, 40, 0, false},
		"start, though committed":  {[]func(*partition){committed(60), start, end}, 40, -1, 0, false},
		"read":                     {[]func(*partition){committed(60), control}, 0, 90, 90, false},
		"read, and more by now":    {[]func(*partition){committed(-1), start, control, end}, 10, 90, 90, false},
		"read, then answered late": {[]func(*partition){control, committed(60), start, end}, 10, 90, 90, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := newPartition(topicPartition{"twins", 3}, new(assignment), new(model))
			for _, step := range test.steps {
				step(p)
			}
			lag, _ := p.lag()
			mark, is := p.toCommit()
			if !is || !p.changed(commitment{mark: mark}) {
				mark.Offset = -1
			}
			if lag != test.lag || mark.Offset != test.mark || p.resolved() != test.resolve || p.uncommitted() != test.uncommitted {
				t.Errorf("lag %d, to be committed %d, resolved %d, uncommitted %v, want %+v", lag, mark.Offset, p.resolved(), p.uncommitted(), test)
			}
			before := p.marked
			p.release()
			start(p)
			p.skip(200, 0, 201)
			if p.marked != before {
				t.Errorf("marked %v after it was released", p.marked)
			}
			p.finish()
			if mark, is := p.toCommit(); is || p.committing("") {
				t.Errorf("%v is committed after the end", mark)
			}
		})
	}
}

// What lies beyond the limit is cut off, and fetching stops there.
func TestLimit(t *testing.T) {
	for last, want := range map[int64]struct{ records, pauses int }{298: {2, 0}, 299: {2, 1}, 300: {1, 1}, 301: {0, 1}} {
		m := newModel(t)
		m.partition.limit = 300
		got := m.partition.within([]*kgo.Record{{Offset: last - 1}, {Offset: last}})
		if len(got) != want.records || m.pauses != want.pauses {
			t.Errorf("of %d and %d it takes %d, and pauses %d times, want %+v", last-1, last, len(got), m.pauses, want)
		}
	}
}

// Nor is anything beyond the limit stepped over.
func TestBatchBeyondTheLimit(t *testing.T) {
	m := newModel(t)
	m.partition.limit = 300
	s := &partitionSet{owned: map[topicPartition]*partition{m.partition.topicPartition: m.partition}}
	r := &poller{member: &member{log: zap.NewNop()}, partitions: s, seeker: &seeker{partitions: s}, scheduler: newScheduler()}
	r.skipBatch(m.partition, &kgo.ErrDecompressTooLarge{Offset: 300, NextOffset: 310})
	if what, at, _ := m.partition.blockedBy(); m.pauses != 1 || what != none || r.scheduler.busy() {
		t.Errorf("%d pauses, blocked by %v at %v, want a pause and nothing else", m.pauses, what, at)
	}
}

// One stuck chunk: its partition is paused when the window is full, and resumed
// when it is half full, once each; a released partition stays paused.
func TestFullWindow(t *testing.T) {
	fill := func() *model {
		m := newModel(t)
		for i := range maxWindow {
			if m.paused {
				t.Fatalf("paused at %d chunks", i)
			}
			m.dispatch(m.track(1, 0))
		}
		if !m.paused {
			t.Fatal("not paused at the limit")
		}
		return m
	}
	stuck := fill()
	stuck.dispatch(stuck.track(1, 0)) // what was polled already
	for i := maxWindow; i > 0; i-- {
		stuck.resolve(stuck.chunks[i])
	}
	if !stuck.paused || !stuck.partition.waits() || stuck.marks != 0 {
		t.Fatal("the stuck chunk doesn't hold the window")
	}
	stuck.resolve(stuck.chunks[0])
	if stuck.paused || stuck.partition.waits() || stuck.pauses != 2 || stuck.marked != maxWindow+1 {
		t.Errorf("paused %v, after %d changes; marked %d", stuck.paused, stuck.pauses, stuck.marked)
	}

	halved := fill()
	for _, c := range halved.chunks[:maxWindow/2] {
		if !halved.paused {
			t.Fatalf("resumed at %d", c.last)
		}
		halved.resolve(c)
	}
	if halved.paused {
		t.Error("not resumed at half")
	}

	released := fill()
	released.lose()
	for _, c := range released.chunks {
		released.resolve(c)
	}
	if !released.paused {
		t.Error("resumed after it was lost: that is its next owner's business")
	}
}
