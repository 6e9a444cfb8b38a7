package catchup

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
	"twinegress/stages/ingest"
)

const readerTopic = "twins"

// readerEnv is a reader between an embedded broker and fake senders. It is the reader's
// Behind and Source.
type readerEnv struct {
	*testing.T
	broker *kfake.Cluster
	client *kgo.Client
	log    *observer.ObservedLogs
	*Reader

	changed  chan struct{}
	full     atomic.Bool
	bytes    atomic.Int64 // acquired
	peak     atomic.Int64
	lanes    atomic.Int64 // taken
	closed   atomic.Bool  // nothing may be given
	prepared atomic.Int64 // times that a chunk was

	mu      sync.Mutex
	owned   []*event.Ownership
	senders []*fakeSender
}

func newReaderEnv(t *testing.T, partitions int32, maxInFlight, batchBytes int64) *readerEnv {
	t.Helper()
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, readerTopic),
		kfake.BrokerConfigs(map[string]string{"message.max.bytes": "67108864"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(broker.Close)
	connect := []kgo.Opt{kgo.SeedBrokers(broker.ListenAddrs()...)}
	client, err := kgo.NewClient(append(connect, kgo.DefaultProduceTopic(readerTopic), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(64<<20), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	core, logs := observer.New(zap.InfoLevel)
	e := &readerEnv{T: t, broker: broker, client: client, log: logs, changed: make(chan struct{}, 1)}
	for p := range partitions {
		e.owned = append(e.owned, &event.Ownership{Topic: readerTopic, Partition: p})
	}
	e.Reader = NewReader(ReaderOptions{
		Connect: connect, BatchBytes: batchBytes, MaxInFlight: maxInFlight, Behind: e, Source: e, Prepare: e.prepare, Log: zap.New(core),
	})
	e.pace.rate = 1e9 // as fast as it goes; the pace has tests of its own
	return e
}

// run runs the reader until the test ends, and checks that it has let go of everything.
func (e *readerEnv) run() {
	ctx, cancel := context.WithCancel(e.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Reader.Run(ctx)
	}()
	e.Cleanup(func() {
		cancel()
		<-done
		for _, s := range e.senders {
			s.settleAll()
		}
		if e.bytes.Load() != 0 || e.lanes.Load() != 0 || e.inFlight.Load() != 0 {
			e.Errorf("%d bytes are acquired, %d in flight, and %d lanes are taken", e.bytes.Load(), e.inFlight.Load(), e.lanes.Load())
		}
	})
}

func (e *readerEnv) produce(partition int32, n, bytes int) {
	e.Helper()
	records := make([]*kgo.Record, n)
	for i := range records {
		records[i] = &kgo.Record{Partition: partition, Value: make([]byte, bytes)}
	}
	if err := e.client.ProduceSync(e.Context(), records...).FirstErr(); err != nil {
		e.Fatal(err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	o := e.owned[partition]
	o.Dispatched.Store(records[n-1].Offset + 1)
}

// sender adds a sender that gets the offsets that keep holds for, and room events.
func (e *readerEnv) sender(name string, room int, keep func(int64) bool) *fakeSender {
	s := &fakeSender{env: e, id: name, keep: keep, room: room, at: make(map[*event.Ownership]int64), got: make(map[int32][]int64)}
	s.auto.Store(true)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.senders = append(e.senders, s)
	return s
}

// Owned, Of and Changed implement Behind.
func (e *readerEnv) Owned() (owned []*event.Ownership) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, o := range e.owned {
		if slices.ContainsFunc(e.senders, func(s *fakeSender) bool { return s.behind(o) }) {
			owned = append(owned, o)
		}
	}
	return owned
}

func (e *readerEnv) Of(o *event.Ownership) (of []Sender) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.senders {
		if s.behind(o) {
			of = append(of, s)
		}
	}
	return of
}

func (e *readerEnv) Changed() <-chan struct{} { return e.changed }

// The rest implements Source.
func (e *readerEnv) TakeLane(o *event.Ownership) (int, bool) {
	e.lanes.Add(1)
	return int(o.Partition), true
}
func (e *readerEnv) ReturnLane(*event.Ownership) { e.lanes.Add(-1) }
func (e *readerEnv) Return(bytes int64)          { e.bytes.Add(-bytes) }
func (e *readerEnv) Full() bool                  { return e.full.Load() }
func (e *readerEnv) Acquire(bytes int64) {
	now := e.bytes.Add(bytes)
	for peak := e.peak.Load(); now > peak && !e.peak.CompareAndSwap(peak, now); peak = e.peak.Load() {
	}
}
func (e *readerEnv) Status() ingest.Status { return ingest.Status{} }

// prepare makes an event of each record.
func (e *readerEnv) prepare(c *event.Chunk, decoded bool) (Prepared, bool) {
	if e.closed.Load() {
		return Prepared{}, false
	}
	if !decoded {
		for i := range c.Records {
			c.Events = append(c.Events, event.Event{Chunk: c, Record: &c.Records[i], Index: event.NoIndex, Body: c.Records[i].Value})
		}
	}
	if !decoded && len(c.Records) > 0 {
		c.Rejected = append(c.Rejected, event.Rejection{Event: event.Event{Chunk: c, Record: &c.Records[0]}, Reason: event.Undecodable})
	}
	e.prepared.Add(1)
	return Prepared{Done: func() {}, Run: func(s Sender) (run []*event.Event, known bool) {
		if s.(*fakeSender).unknown.Load() {
			return nil, false
		}
		for i := range c.Events {
			if s.(*fakeSender).keep(c.Events[i].Record.Offset) {
				run = append(run, &c.Events[i])
			}
		}
		return run, true
	}}, true
}

// fakeSender checks that it is given what is next, without a gap or a repeat.
type fakeSender struct {
	env     *readerEnv
	id      string
	keep    func(int64) bool
	room    int
	auto    atomic.Bool // what it is given has its outcome at once
	unknown atomic.Bool // it is not in the table

	mu      sync.Mutex
	at      map[*event.Ownership]int64 // the next offsets where it is behind
	got     map[int32][]int64
	pending []*event.Event
	gives   int
	expired int64
	retryAt time.Time
}

func all(int64) bool { return true }

func (s *fakeSender) behind(o *event.Ownership) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, is := s.at[o]
	return is
}

// fallBehind sets a position.
func (s *fakeSender) fallBehind(partition int32, at int64) {
	s.mu.Lock()
	s.at[s.env.owned[partition]] = at
	s.mu.Unlock()
	signal(s.env.changed)
}

func (s *fakeSender) Endpoint() endpoints.Endpoint { return endpoints.Endpoint{ID: s.id} }

func (s *fakeSender) Next(o *event.Ownership, now time.Time) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, is := s.at[o]
	if !is || len(s.pending) > s.room/2 || now.Before(s.retryAt) {
		return 0, false
	}
	return at, true
}

func (s *fakeSender) RetryAt() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retryAt
}

func (s *fakeSender) Give(o *event.Ownership, lane int, from *event.Chunk, run []*event.Event, next int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, is := s.at[o]
	if !is || len(s.pending) > 0 && len(s.pending)+len(run) > s.room {
		return false
	}
	if lane != int(o.Partition) || from.First > at || from.Last+1 != next || next <= at {
		s.env.Errorf("%s is at %d of partition %d, and is given %d..%d, next %d, in lane %d", s.id, at, o.Partition, from.First, from.Last, next, lane)
	}
	for _, ev := range run {
		if ev.Record.Offset < at || ev.Record.Offset >= next {
			s.env.Errorf("%s is at %d, and is given %d of ..%d", s.id, at, ev.Record.Offset, next)
		}
		s.got[o.Partition] = append(s.got[o.Partition], ev.Record.Offset)
	}
	s.at[o] = next
	s.gives++
	if s.auto.Load() {
		return true
	}
	from.Hold(len(run))
	s.pending = append(s.pending, run...)
	return true
}

func (s *fakeSender) Join(o *event.Ownership) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at[o] < o.Dispatched.Load() {
		return false
	}
	delete(s.at, o)
	return true
}

func (s *fakeSender) Skip(o *event.Ownership, to int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := to - s.at[o]
	s.at[o] = to
	s.expired += n
	return n
}

func (s *fakeSender) Seek(o *event.Ownership, to, _ int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[o] = to
}

// settle gives up to n events their outcome, and returns how many it had.
func (s *fakeSender) settle(n int) int {
	s.mu.Lock()
	n = min(n, len(s.pending))
	settled := slices.Clone(s.pending[:n])
	s.pending = s.pending[n:]
	s.mu.Unlock()
	for _, ev := range settled {
		ev.Chunk.Settle(1)
	}
	signal(s.env.changed)
	return n
}

func (s *fakeSender) settleAll() { s.settle(1 << 30) }

func (s *fakeSender) live() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.at) == 0
}

// wants fails the test unless the sender got what it keeps of these offsets, in order.
func (s *fakeSender) wants(partition int32, from, to int64) {
	s.env.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var want []int64
	for at := from; at < to; at++ {
		if s.keep(at) {
			want = append(want, at)
		}
	}
	if got := s.got[partition]; !slices.Equal(got, want) {
		s.env.Errorf("%s got %d offsets of partition %d, want %d of %d..%d; %s", s.id, len(got), partition, len(want), from, to, firstDifference(got, want))
	}
}

func firstDifference(got, want []int64) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("number %d is %d, want %d", i, got[i], want[i])
		}
	}
	return "one is longer"
}

// Endpoints that are behind at different places of several partitions all get what is
// theirs from there on, in order, and join at the end. Those at about the same place
// share a reading.
func TestReaderCatchesUp(t *testing.T) {
	t.Parallel()
	const partitions, n = 4, 5000
	e := newReaderEnv(t, partitions, 64<<20, 16<<20)
	for p := range int32(partitions) {
		e.produce(p, n, 100)
	}
	for i := range 10 {
		s := e.sender(fmt.Sprintf("endpoint %d", i), 2000, func(at int64) bool { return at%10 <= int64(i) })
		for p := range int32(partitions) {
			s.fallBehind(p, int64(i*300+int(p)))
		}
	}
	e.run()
	for i, s := range e.senders {
		eventually.Holds(t, "it has caught up", s.live)
		for p := range int32(partitions) {
			s.wants(p, int64(i*300+int(p)), n)
		}
	}
	if read := e.Reader.Status().Records; read > partitions*n*3/2 {
		t.Errorf("%d records were read for what is %d", read, partitions*n)
	}
}

// A sender that takes nothing more is left behind, and comes back when it does; the
// others don't wait for it.
func TestReaderSlowSender(t *testing.T) {
	t.Parallel()
	const n = 20_000
	e := newReaderEnv(t, 1, 64<<20, 16<<20)
	e.produce(0, n, 100)
	slow, fast := e.sender("slow", 1000, all), e.sender("fast", 1000, all)
	slow.auto.Store(false)
	slow.fallBehind(0, 0)
	fast.fallBehind(0, 0)
	e.run()
	eventually.Holds(t, "the fast one has caught up", fast.live)
	fast.wants(0, 0, n)
	if slow.live() {
		t.Fatal("the slow one got more than it has room for")
	}
	eventually.Holds(t, "the slow one has caught up", func() bool {
		slow.settle(300)
		return slow.live()
	})
	slow.wants(0, 0, n)
}

// Two that are at the same place, and are full at different times, share what is read.
func TestReaderWindow(t *testing.T) {
	t.Parallel()
	const n = 20_000
	e := newReaderEnv(t, 1, 256<<20, 16<<20)
	e.produce(0, n, 100)
	a, b := e.sender("a", 1000, all), e.sender("b", 1300, all)
	for _, s := range []*fakeSender{a, b} {
		s.auto.Store(false)
		s.fallBehind(0, 0)
	}
	e.run()
	eventually.Holds(t, "both have caught up", func() bool {
		a.settle(700)
		b.settle(700)
		return a.live() && b.live()
	})
	a.wants(0, 0, n)
	b.wants(0, 0, n)
	if read := e.Reader.Status().Records; read > n*11/10 {
		t.Errorf("%d records were read, of %d", read, n)
	}
}

// What is read is bounded, though nothing has its outcome.
func TestReaderMemory(t *testing.T) {
	t.Parallel()
	const partitions, n, maxInFlight = 4, 4000, 8 << 20
	e := newReaderEnv(t, partitions, maxInFlight, 16<<20)
	var stuck []*fakeSender
	for p := range int32(partitions) {
		for range n / 100 { // a batch each: the brokers send none in parts
			e.produce(p, 100, 1000)
		}
		s := e.sender(fmt.Sprintf("endpoint %d", p), 1<<30, all)
		s.auto.Store(false)
		s.fallBehind(p, 0)
		stuck = append(stuck, s)
	}
	e.run()
	eventually.Holds(t, "reading waits for memory", func() bool { return e.Reader.Status().Waiting == string(waitsForMemory) })
	for _, s := range stuck {
		eventually.Holds(t, "it has caught up", func() bool {
			for _, s := range stuck {
				s.settle(100)
			}
			return s.live()
		})
	}
	for p, s := range stuck {
		s.wants(int32(p), 0, n)
	}
	// The brokers send a batch at least, a chunk's copies are given at once, and a chunk
	// can have a buffer of twice its bytes: all that is one chunk more than a quarter.
	const share = maxInFlight / shareOfMemory
	if peak := e.peak.Load(); peak > share*5/4 || peak < share/2 {
		t.Errorf("%d bytes were in flight, of %d", peak, share)
	}
}

// What a topic's retention took is skipped, counted, and said once.
func TestReaderExpired(t *testing.T) {
	t.Parallel()
	const n, start = 1000, 600
	e := newReaderEnv(t, 1, 64<<20, 16<<20)
	e.produce(0, n, 100)
	_, err := kadm.NewClient(e.client).DeleteRecords(t.Context(), kadm.Offsets{readerTopic: {0: {Topic: readerTopic, At: start}}})
	if err != nil {
		t.Fatal(err)
	}
	a, b, later := e.sender("a", 1000, all), e.sender("b", 1000, all), e.sender("later", 1000, all)
	a.fallBehind(0, 100)
	b.fallBehind(0, 599)
	later.fallBehind(0, start)
	e.run()
	for s, expired := range map[*fakeSender]int64{a: 500, b: 1, later: 0} {
		eventually.Holds(t, "it has caught up", s.live)
		s.wants(0, start, n)
		if s.expired != expired {
			t.Errorf("%s: %d have expired, want %d", s.id, s.expired, expired)
		}
	}
	said := e.log.FilterMessageSnippet("events have left the topic").All()
	if len(said) != 2 || said[0].ContextMap()["skipped"] != int64(500) || said[0].ContextMap()["endpoint"] != "a" {
		t.Errorf("the log says %v", said)
	}
}

// A position behind the end of the partition is of another topic of that name.
func TestReaderBehindTheEnd(t *testing.T) {
	t.Parallel()
	e := newReaderEnv(t, 1, 64<<20, 16<<20)
	e.produce(0, 100, 100)
	s := e.sender("a", 1000, all)
	s.fallBehind(0, 5000)
	e.run()
	eventually.Holds(t, "it has caught up", func() bool { return s.live() })
	s.wants(0, 0, 100)
	if n := e.log.FilterMessageSnippet("behind the end of the partition").Len(); n != 1 {
		t.Errorf("that is said %d times", n)
	}
}

// Batches that take too much memory are stepped over, compressed or not.
func TestReaderBombs(t *testing.T) {
	t.Parallel()
	const limit = 2 << 20
	e := newReaderEnv(t, 1, 64<<20, limit)
	e.produce(0, 10, 100)
	zstd, err := kgo.NewClient(kgo.SeedBrokers(e.broker.ListenAddrs()...), kgo.DefaultProduceTopic(readerTopic),
		kgo.ProducerBatchMaxBytes(64<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()))
	if err != nil {
		t.Fatal(err)
	}
	defer zstd.Close()
	plain, err := kgo.NewClient(kgo.SeedBrokers(e.broker.ListenAddrs()...), kgo.DefaultProduceTopic(readerTopic), kgo.MaxBufferedRecords(1<<20),
		kgo.ManualFlushing(), kgo.ProducerBatchCompression(kgo.NoCompression())) // one batch, however long it takes to be filled
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if err := zstd.ProduceSync(t.Context(), &kgo.Record{Value: make([]byte, 2*limit)}).FirstErr(); err != nil { // 10
		t.Fatal(err)
	}
	e.produce(0, 10, 100) // 11..20
	for range 20_000 {    // 21..20020: of 176 bytes in memory, each
		plain.Produce(t.Context(), new(kgo.Record), nil)
	}
	if err := plain.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.produce(0, 10, 100) // ..20030
	const end = 31 + 20_000
	s := e.sender("a", 1000, func(at int64) bool { return at <= 20 || at > 20_020 })
	s.fallBehind(0, 0)
	e.run()
	eventually.Holds(t, "it has caught up", s.live)
	s.keep = func(at int64) bool { return at != 10 && (at <= 20 || at > 20_020) }
	s.wants(0, 0, end)
	if st := e.Reader.Status(); st.TooLarge != 20_001 || st.Records != 30 {
		t.Errorf("%d offsets are passed over, %d records read", st.TooLarge, st.Records)
	}
}

// Once an ownership is dropped nobody is given anything more of it, and its lane is
// free.
func TestReaderDrop(t *testing.T) {
	t.Parallel()
	const n = 20_000
	e := newReaderEnv(t, 2, 64<<20, 16<<20)
	e.produce(0, n, 100)
	e.produce(1, n, 100)
	s := e.sender("a", 1000, all)
	s.auto.Store(false)
	s.fallBehind(0, 0)
	other := e.sender("b", 1000, all)
	other.auto.Store(false)
	other.fallBehind(1, 0)
	e.run()
	eventually.Holds(t, "it is full", func() bool { _, ready := s.Next(e.owned[0], time.Now()); return !ready })
	e.Drop(e.owned[0])
	s.mu.Lock()
	gives := s.gives
	s.mu.Unlock()
	s.settleAll()
	eventually.Holds(t, "the other has caught up", func() bool { s.settleAll(); other.settle(500); return other.live() })
	if s.mu.Lock(); s.gives != gives {
		t.Errorf("given %d times, then %d", gives, s.gives)
	}
	s.mu.Unlock()
	other.settleAll()
	eventually.Holds(t, "the lanes are free", func() bool { return e.lanes.Load() == 0 })
	e.Forget(e.owned[0])
	if e.mu.Lock(); e.Reader.readings[e.owned[0]] != nil {
		t.Error("an ownership that has ended is kept")
	}
	e.mu.Unlock()
}

// Nothing is read while what all endpoints read together waits, nor while an endpoint
// backs off; both go on by themselves.
func TestReaderWaits(t *testing.T) {
	t.Parallel()
	const n = 1000
	e := newReaderEnv(t, 1, 64<<20, 16<<20)
	e.produce(0, n, 100)
	e.full.Store(true)
	s := e.sender("a", 1000, all)
	s.retryAt = time.Now().Add(100 * time.Millisecond)
	s.fallBehind(0, 0)
	e.run()
	eventually.Holds(t, "it waits", func() bool { return e.Reader.Status().Waiting == string(waitsForRoom) })
	if read := e.Reader.Status().Records; read != 0 {
		t.Errorf("%d records are read", read)
	}
	e.full.Store(false)
	eventually.Holds(t, "it has caught up", s.live)
	s.wants(0, 0, n)
}

// While nothing may be given nothing is, and then all of it.
func TestReaderClosedTable(t *testing.T) {
	t.Parallel()
	e := newReaderEnv(t, 1, 64<<20, 16<<20)
	e.produce(0, 100, 100)
	e.closed.Store(true)
	s := e.sender("a", 1000, all)
	s.fallBehind(0, 0)
	e.run()
	eventually.Holds(t, "it is read", func() bool { return e.Reader.Status().Records == 100 })
	e.closed.Store(false)
	eventually.Holds(t, "it has caught up", s.live)
	s.wants(0, 0, 100)
}

// Who is behind while events come joins as soon as it has what is dispatched.
func TestReaderWhileEventsCome(t *testing.T) {
	t.Parallel()
	e := newReaderEnv(t, 1, 64<<20, 16<<20)
	e.produce(0, 100, 100)
	s := e.sender("a", 1000, all)
	e.run()
	for i := range 20 {
		s.fallBehind(0, int64(i)*100)
		e.produce(0, 100, 100)
		eventually.Holds(t, "it has caught up", s.live)
		s.mu.Lock()
		got := s.got[0]
		s.got[0] = nil
		s.mu.Unlock()
		for j, at := range got {
			if want := int64(i)*100 + int64(j); at != want || len(got) < 100 {
				t.Fatalf("number %d of %d is %d, want %d", j, len(got), at, want)
			}
		}
	}
}

// The client is closed when nobody has been behind for a minute, and made anew.
func TestReaderClosesItsClient(t *testing.T) {
	t.Parallel()
	e := newReaderEnv(t, 1, 64<<20, 16<<20)
	e.produce(0, 100, 100)
	s := e.sender("a", 1000, all)
	e.run()
	if e.Reader.client != nil {
		t.Error("there is a client though nobody is behind")
	}
	for range 2 {
		s.fallBehind(0, 0)
		eventually.Holds(t, "it has caught up", s.live)
		signal(e.changed)
		eventually.Holds(t, "it is noticed", func() bool {
			e.Reader.mu.Lock()
			defer e.Reader.mu.Unlock()
			return !e.Reader.idle.IsZero()
		})
		e.Reader.mu.Lock()
		e.Reader.idle = e.Reader.idle.Add(-idleTimeout)
		e.Reader.mu.Unlock()
		signal(e.changed)
		eventually.Holds(t, "the client is closed", func() bool {
			e.Reader.mu.Lock()
			defer e.Reader.mu.Unlock()
			return e.Reader.client == nil
		})
	}
}
