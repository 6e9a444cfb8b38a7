package sinks

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var defaults = Options{
	Linger: 5 * time.Millisecond, MaxEvents: 100,
	BackoffInitial: time.Second, BackoffMax: 30 * time.Minute,
	Timeout: 10 * time.Second, Attempts: 3, ThrottleLimit: 2 * time.Minute,
}

var hub = endpoints.Endpoint{
	ID: "4f2d1a5e-0000-4000-8000-000000000001", Type: endpoints.TypeEventHub, Path: "twins",
	ConnectionString: "primary", SecondaryConnectionString: "secondary",
	EventTypes: []string{endpoints.SensorChange}, Overflow: endpoints.OverflowBlock,
}

// call is one Send, as the service saw it.
type call struct {
	at      time.Duration // since the harness was made
	key     string        // the connection string that it came with
	offsets []int64
	part    int32
	sink    int // in the order of their opening
	err     error
}

// service is a scripted sink, of any endpoint and key.
type service struct {
	h       *harness
	respond func(ctx context.Context, key string, events []*event.Event) (int, error)

	mu       sync.Mutex
	calls    []call
	stored   map[int32][]int64 // offsets by partition
	inFlight map[int32]int     // by lane
	peak     int               // of lanes with a send in flight
	opened   int
	closed   []string
}

type fakeSink struct {
	*service
	key    string
	number int
}

func (s *service) open(e endpoints.Endpoint, key Key) (Sink, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened++
	if key == Secondary {
		return fakeSink{s, e.SecondaryConnectionString, s.opened}, nil
	}
	return fakeSink{s, e.ConnectionString, s.opened}, nil
}

func (w fakeSink) Send(ctx context.Context, events []*event.Event) (int, error) {
	c := call{at: time.Since(w.h.start), key: w.key, part: events[0].Chunk.Partition, sink: w.number}
	for _, ev := range events {
		c.offsets = append(c.offsets, ev.Record.Offset)
	}
	lane := c.part % event.Lanes
	w.mu.Lock()
	if w.inFlight[lane]++; w.inFlight[lane] > 1 {
		w.h.t.Errorf("lane %d has %d sends in flight", lane, w.inFlight[lane])
	}
	w.peak = max(w.peak, len(w.inFlight))
	w.mu.Unlock()

	n, err := len(events), error(nil)
	if w.respond != nil {
		n, err = w.respond(ctx, w.key, events)
	}

	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.inFlight, lane)
	c.err = err
	c.offsets = c.offsets[:n]
	w.calls = append(w.calls, c)
	if err == nil {
		for _, ev := range events[:n] {
			p := ev.Chunk.Partition
			w.stored[p] = append(w.stored[p], ev.Record.Offset)
		}
	}
	return n, err
}

func (w fakeSink) Close(context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = append(w.closed, w.key)
	return nil
}

// letter is a dead letter; letters stores them at once, or when it is told to.
type letter struct {
	partition int32
	offset    int64
	reason    event.Reason
	detail    string
}

type letters struct {
	mu   sync.Mutex
	got  []letter
	late bool           // they are stored by storeAll
	kept []*event.Chunk // of those that are not stored yet
}

func (l *letters) storeAll() {
	l.mu.Lock()
	kept := l.kept
	l.kept = nil
	l.mu.Unlock()
	for _, c := range kept {
		c.Settle(1)
	}
}

func (l *letters) Put(ev *event.Event, reason event.Reason, detail string, to *Recipient) {
	l.mu.Lock()
	l.got = append(l.got, letter{ev.Chunk.Partition, ev.Record.Offset, reason, detail})
	late := l.late
	if late {
		l.kept = append(l.kept, ev.Chunk)
	}
	l.mu.Unlock()
	if to.ID != hub.ID {
		panic("a dead letter of endpoint " + to.ID)
	}
	if !late {
		ev.Chunk.Settle(1)
	}
}

// harness is a sender with a scripted service and a dispatcher.
type harness struct {
	t       *testing.T
	start   time.Time
	service *service
	letters letters
	logs    *observer.ObservedLogs // warnings
	fanout  Fanout                 // the dispatcher's
	*Sender

	mu   sync.Mutex
	open int             // chunks that aren't settled
	next map[int32]int64 // the partition's next offset
}

// newHarness makes one; finish must be called at the end of a test.
func newHarness(t *testing.T, endpoint endpoints.Endpoint, options Options) *harness {
	t.Helper()
	h := &harness{t: t, start: time.Now(), next: make(map[int32]int64)}
	h.service = &service{h: h, stored: make(map[int32][]int64), inFlight: make(map[int32]int)}
	core, logs := observer.New(zap.WarnLevel)
	h.logs = logs
	h.Sender = NewSender(endpoint, options, h.service.open, &h.letters, zap.New(core))
	return h
}

// chunk makes a chunk of n events of that many bytes. The caller holds its count.
func (h *harness) chunk(partition int32, n, bytes int) *event.Chunk {
	h.mu.Lock()
	h.open++
	h.mu.Unlock()
	once := false
	c := event.NewChunk("twins", partition, n, n*bytes, func(c *event.Chunk) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if once {
			h.t.Error("a chunk was settled twice")
		}
		once = true
		h.open--
		c.Free()
	})
	for range n {
		c.Add(h.next[partition], time.Now().UnixMilli(), 0, nil, make([]byte, bytes))
		h.next[partition]++
	}
	for i := range c.Records {
		r := &c.Records[i]
		c.Events = append(c.Events, event.Event{Chunk: c, Record: r, Index: event.NoIndex, Type: event.SensorChange, Body: r.Value})
	}
	return c
}

// dispatch is the pipeline's.
func (h *harness) dispatch(ctx context.Context, c *event.Chunk) error {
	h.fanout.Reset()
	for i := range c.Events {
		h.fanout.Add(&c.Events[i], []Slot{0})
	}
	h.fanout.Group()
	err := h.fanout.Enqueue(ctx, c, []*Sender{h.Sender})
	if err == nil {
		c.Settle(1)
	}
	return err
}

// put dispatches one chunk of n small events.
func (h *harness) put(partition int32, n int) {
	h.t.Helper()
	if err := h.dispatch(h.t.Context(), h.chunk(partition, n, 10)); err != nil {
		h.t.Errorf("dispatch: %v", err)
	}
}

// advance waits for d of virtual time, and until nothing more happens then.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// snapshot checks the equation.
func (h *harness) snapshot() Snapshot {
	h.t.Helper()
	snap := h.Snapshot()
	c := &snap.Counts
	if c.Pending < 0 || c.Routed != c.Delivered+c.DroppedTotal()+c.Deferred+uint64(c.Pending) {
		h.t.Errorf("routed %d != delivered %d + dropped %v + deferred %d + pending %d", c.Routed, c.Delivered, c.Dropped, c.Deferred, c.Pending)
	}
	return snap
}

// calls returns the sends that have returned.
func (h *harness) calls() []call {
	h.service.mu.Lock()
	defer h.service.mu.Unlock()
	return slices.Clone(h.service.calls)
}

// unsettled is the number of chunks without an outcome.
func (h *harness) unsettled() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

// finish closes the sender and checks that nothing is left.
func (h *harness) finish() {
	h.t.Helper()
	if err := h.Close(h.t.Context()); err != nil {
		h.t.Errorf("Close: %v", err)
	}
	if n := h.unsettled(); n != 0 {
		h.t.Errorf("%d chunks are not settled", n)
	}
	if n := h.snapshot().Counts.Pending; n != 0 {
		h.t.Errorf("%d events are pending", n)
	}
}

type counts map[string]int // "delivered", or a reason

func (h *harness) counted() counts {
	h.t.Helper()
	c := h.snapshot().Counts
	got := counts{}
	for r, n := range c.Dropped {
		if n > 0 {
			got[event.Reason(r).String()] = int(n)
		}
	}
	if c.Delivered > 0 {
		got["delivered"] = int(c.Delivered)
	}
	if c.Pending > 0 {
		got["pending"] = c.Pending
	}
	return got
}

func (h *harness) expect(want counts) {
	h.t.Helper()
	if got := h.counted(); !maps.Equal(got, want) {
		h.t.Errorf("counts are %v, want %v", got, want)
	}
}

// expectCalls checks when sends went out, and of how many events.
func (h *harness) expectCalls(want ...call) {
	h.t.Helper()
	calls := h.calls()
	same := slices.EqualFunc(calls, want, func(a, b call) bool {
		return a.at == b.at && len(a.offsets) == len(b.offsets) && (b.key == "" || a.key == b.key)
	})
	if !same {
		h.t.Errorf("sends are\n%v, want\n%v", show(calls), show(want))
	}
}

func show(calls []call) (out []string) {
	for _, c := range calls {
		out = append(out, c.at.String()+" "+c.key+" ×"+strconv.Itoa(len(c.offsets)))
	}
	return out
}

func sent(at time.Duration, n int, key ...string) call {
	c := call{at: at, offsets: make([]int64, n)}
	if len(key) > 0 {
		c.key = key[0]
	}
	return c
}

// inOrder checks that a partition's offsets only rise.
func (h *harness) inOrder() {
	h.t.Helper()
	for p, offsets := range h.service.stored {
		if !slices.IsSorted(offsets) {
			h.t.Errorf("partition %d was stored out of order: %v", p, offsets)
		}
	}
}

var errTest = errors.New("test")

func refusal(reason event.Reason, wait time.Duration) error {
	return &Error{Reason: reason, Wait: wait, Err: errTest}
}

// errHang makes script's Send block until its time is over.
var errHang = errors.New("hangs")

// ofNoEvent is an error before any event was looked at.
type ofNoEvent struct{ error }

// script returns the next error from each Send, and takes everything after the last.
func script(errs ...error) func(context.Context, string, []*event.Event) (int, error) {
	var mu sync.Mutex
	return func(ctx context.Context, _ string, events []*event.Event) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if len(errs) == 0 {
			return len(events), nil
		}
		err := errs[0]
		errs = errs[1:]
		if err == errHang { //nolint:errorlint // itself
			<-ctx.Done()
			return len(events), ctx.Err()
		}
		if none, ok := err.(ofNoEvent); ok { //nolint:errorlint // itself
			return 0, none.error
		}
		return len(events), err
	}
}

// taker is a sink that takes everything at once.
type taker struct{}

func discard(endpoints.Endpoint, Key) (Sink, error) { return taker{}, nil }

func (taker) Send(_ context.Context, events []*event.Event) (int, error) { return len(events), nil }

func (taker) Close(context.Context) error { return nil }
