package ingest

import (
	"context"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"twinegress/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// model is what a tracker must do, in the plainest way, and the consumer that
// it does it to.
type model struct {
	t         testing.TB
	partition *partition

	chunks   []*modelChunk
	next     int64 // the offset after all that was tracked or passed
	passed   int64 // the offset after the last one that was passed before the first chunk
	over     bool  // nothing may be marked any more
	marked   int64 // last mark
	marks    int
	released int64
	paused   bool
	pauses   int
}

type modelChunk struct {
	*event.Chunk
	first, last      int64
	bytes            int64
	handed, resolved bool
}

func newModel(t testing.TB) *model {
	m := &model{t: t}
	m.partition = newPartition(topicPartition{"twins", 3}, new(assignment), m)
	return m
}

// mark checks what is marked: just the contiguous prefix, never back, never after the end.
func (m *model) mark(of topicPartition, epoch int32, offset int64) {
	m.t.Helper()
	switch {
	case of != m.partition.topicPartition:
		m.t.Fatalf("marked %v", of)
	case m.over:
		m.t.Fatalf("marked %d after the partition was given up", offset)
	case offset <= m.marked:
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
	offset = m.passed
	for _, c := range m.chunks {
		if !c.resolved {
			break
		}
		offset = c.last + 1
	}
	return offset
}

func (m *model) pause(topicPartition) { m.fetch(true) }

func (m *model) resume(topicPartition) { m.fetch(false) }

func (m *model) fetch(paused bool) {
	if paused == m.paused {
		m.t.Fatalf("paused %v twice", paused)
	}
	m.paused = paused
	m.pauses++
}

func (m *model) wake() {}

func (m *model) release(bytes int64) { m.released += bytes }

// track adds a chunk of that many records, with a gap before it, as compaction and transactions leave them.
func (m *model) track(records int, gap int64) *modelChunk {
	first := m.next + gap
	last := first + int64(records) - 1
	c := &modelChunk{Chunk: event.NewChunk("twins", 3, records, 0, m.partition.settled), first: first, last: last}
	for o := first; o <= last; o++ {
		c.Add(o, 0, int32((o+1)%7), nil, []byte("x"))
	}
	c.bytes = c.Bytes()
	m.next = last + 1
	m.partition.track(c.Chunk, m.next)
	m.chunks = append(m.chunks, c)
	return c
}

// pass moves over an offset that has no event.
func (m *model) pass() {
	m.t.Helper()
	m.next++
	if n := len(m.chunks); n > 0 {
		m.chunks[n-1].last = m.next - 1 // goes with it
	} else {
		m.passed = m.next
	}
	marks, want := m.marks, !m.over && m.watermark() > m.marked
	m.partition.skip(m.next-1, int32(m.next%7), m.next)
	if (m.marks > marks) != want {
		m.t.Fatalf("passing %d marked %d times, want a mark: %v", m.next-1, m.marks-marks, want)
	}
}

func (m *model) hand(c *modelChunk) {
	c.handed = m.partition.dispatch()
}

func (m *model) resolve(c *modelChunk) {
	m.t.Helper()
	c.resolved = true
	before, marks := m.released, m.marks
	wantMark := !m.over && m.watermark() > m.marked
	c.Settle(1)
	if m.released != before+c.bytes {
		m.t.Fatalf("released %d bytes, want %d", m.released-before, c.bytes)
	}
	if (m.marks > marks) != wantMark {
		m.t.Fatalf("marked %d times, want a mark: %v", m.marks-marks, wantMark)
	}
}

func (m *model) lose() {
	m.over = true
	m.partition.release()
}

// drain gives up at once what isn't resolved: a drain whose time is over.
func (m *model) drain() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m.partition.drain(ctx)
	m.over = true
}

// play lets the bytes decide what happens next. Chunks are handed out in
// order, and resolved in any.
func play(t testing.TB, steps []byte) {
	m := newModel(t)
	var next int            // to hand out
	var open []*modelChunk  // handed out, not resolved
	var freed []*modelChunk // not handed out any more
	for i := 0; i+1 < len(steps); i += 2 {
		op, arg := steps[i]%16, int(steps[i+1])
		switch {
		case op < 5:
			m.track(1+arg%5, int64(arg/50))
		case op < 6:
			m.pass()
		case op < 10:
			if next < len(m.chunks) {
				c := m.chunks[next]
				next++
				m.hand(c)
				if c.handed == m.over {
					t.Fatalf("hand gives %v, given up: %v", c.handed, m.over)
				}
				if c.handed {
					open = append(open, c)
				} else {
					freed = append(freed, c)
				}
			}
		case op < 15:
			if len(open) > 0 {
				i := arg % len(open)
				c := open[i]
				open = append(open[:i], open[i+1:]...)
				m.resolve(c)
			}
		case arg < 8:
			m.lose()
		case arg < 16:
			m.drain()
		}
	}
	rand.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
	for _, c := range open {
		m.resolve(c)
	}
	for _, c := range freed {
		c.Free()
	}
	if got := m.partition.lag(); got < 0 {
		t.Fatalf("lag is %d", got)
	}
}

func TestTrackerAgainstModel(t *testing.T) {
	for range 3000 {
		steps := make([]byte, rand.IntN(400))
		for i := range steps {
			steps[i] = byte(rand.Uint32())
		}
		play(t, steps)
	}
}

func FuzzTracker(f *testing.F) {
	f.Add([]byte{0, 1, 0, 2, 6, 0, 6, 0, 10, 1, 10, 0})
	f.Add([]byte{0, 1, 0, 2, 6, 0, 6, 0, 15, 0, 10, 1, 10, 0})
	f.Add([]byte{0, 1, 0, 2, 6, 0, 15, 9, 6, 0, 10, 0})
	f.Fuzz(func(t *testing.T, steps []byte) { play(t, steps) })
}

// The two mistakes that lose events, each in its shortest form.
func TestTrackerMarks(t *testing.T) {
	t.Run("only the contiguous prefix", func(t *testing.T) {
		m := newModel(t)
		a, b, c := m.track(2, 0), m.track(2, 0), m.track(2, 0)
		for _, x := range m.chunks {
			m.hand(x)
		}
		m.resolve(c)
		m.resolve(b)
		if m.marks != 0 {
			t.Fatalf("marked %d behind an unresolved chunk", m.marked)
		}
		m.resolve(a)
		if m.marked != 6 || m.marks != 1 {
			t.Fatalf("marked %d in %d marks, want 6 in one", m.marked, m.marks)
		}
		if lag := m.partition.lag(); lag != 0 {
			t.Errorf("lag is %d", lag)
		}
	})
	for name, end := range map[string]func(*model){"lost": (*model).lose, "drained": (*model).drain} {
		t.Run("nothing once it is "+name, func(t *testing.T) {
			m := newModel(t)
			a, b := m.track(2, 0), m.track(2, 0)
			m.hand(a)
			m.hand(b)
			m.resolve(a)
			end(m)
			m.resolve(b) // the model fails on a mark
			if m.released != a.bytes+b.bytes {
				t.Errorf("released %d bytes", m.released)
			}
		})
	}
}

// A drain waits for what is handed out, marks it, and hands out nothing more.
func TestTrackerDrain(t *testing.T) {
	tests := map[string]struct {
		resolved time.Duration // the handed chunk; 0: never
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
				m.hand(a)
				begun := time.Now()
				var took time.Duration
				done := make(chan struct{})
				go func() {
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					m.partition.drain(ctx)
					took = time.Since(begun)
					m.over = true
					close(done)
				}()
				synctest.Wait()
				if m.partition.dispatch() {
					t.Error("a chunk is handed out while draining")
				}
				b.Free()
				if test.resolved > 0 {
					<-time.After(test.resolved)
					synctest.Wait()
					m.resolve(a)
				}
				<-done
				if took != test.took || m.marked != test.marked {
					t.Errorf("took %v and marked %d, want %v and %d", took, m.marked, test.took, test.marked)
				}
			})
		})
	}
	t.Run("nothing handed out", func(t *testing.T) {
		m := newModel(t)
		m.track(1, 0)
		m.partition.drain(t.Context()) // returns at once
		m.over = true
	})
}

// What lies beyond the limit is cut off, and fetching ends there.
func TestTrackerLimit(t *testing.T) {
	for last, want := range map[int64]struct{ records, stopped int }{298: {2, 0}, 299: {2, 1}, 300: {1, 1}, 301: {0, 1}} {
		m := newModel(t)
		m.partition.limit = 300
		got := m.partition.within([]*kgo.Record{{Offset: last - 1}, {Offset: last}})
		if len(got) != want.records || m.pauses != want.stopped {
			t.Errorf("of %d and %d it takes %d, and stops %d times, want %+v", last-1, last, len(got), m.pauses, want)
		}
	}
}

// One stuck chunk: its partition is paused at the window's limit and resumed
// at half of it, once each.
func TestTrackerWindow(t *testing.T) {
	m := newModel(t)
	for i := range maxWindow {
		if m.paused {
			t.Fatalf("paused at %d chunks", i)
		}
		m.hand(m.track(1, 0))
	}
	if !m.paused {
		t.Fatal("not paused at the limit")
	}
	m.hand(m.track(1, 0)) // what was polled already
	for i := maxWindow; i > 0; i-- {
		m.resolve(m.chunks[i]) // everything but the first
	}
	if !m.paused || m.marks != 0 {
		t.Fatal("the stuck chunk holds the window")
	}
	m.resolve(m.chunks[0])
	if m.paused || m.pauses != 2 || m.marked != maxWindow+1 {
		t.Errorf("paused %v, after %d changes; marked %d", m.paused, m.pauses, m.marked)
	}

	// Resolved from the front, it resumes at half.
	m = newModel(t)
	for range maxWindow {
		m.hand(m.track(1, 0))
	}
	for i := range maxWindow / 2 {
		if !m.paused {
			t.Fatalf("resumed with %d chunks in the window", maxWindow-i)
		}
		m.resolve(m.chunks[i])
	}
	if m.paused {
		t.Error("not resumed at half")
	}
	for _, c := range m.chunks[maxWindow/2:] {
		m.resolve(c)
	}

	// A partition that is given up is not resumed: its next owner decides.
	m = newModel(t)
	for range maxWindow {
		m.hand(m.track(1, 0))
	}
	m.lose()
	for _, c := range m.chunks {
		m.resolve(c)
	}
	if !m.paused {
		t.Error("resumed after it was lost")
	}
}
