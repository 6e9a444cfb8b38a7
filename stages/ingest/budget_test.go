package ingest

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/event"
	"twinegress/internal/eventually"
)

// budgetOf returns a budget with partitions that count in it.
func budgetOf(limit int64, partitions int) (*budget, []*partition, *counting) {
	c := &counting{budget: newBudget(limit)}
	of := make([]*partition, partitions)
	for i := range of {
		of[i] = newPartition(topicPartition{"t", int32(i)}, &assignment{}, c)
		of[i].state = active
	}
	return c.budget, of, c
}

// counting is the consumer of partitions whose bytes are counted.
type counting struct {
	*budget
	paused []int32
}

func (*counting) wake()                     {}
func (c *counting) pause(of topicPartition) { c.paused = append(c.paused, of.number) }
func (c *counting) resume(of topicPartition) {
	c.paused = slices.DeleteFunc(c.paused, func(n int32) bool { return n == of.number })
}

// read adds a chunk of so many bytes to a partition: of more than are pooled, or
// it could have the buffer of another test's.
func read(p *partition, bytes int) *event.Chunk {
	c := event.NewChunk(p.topic, p.number, 0, bytes, p.settled)
	c.Grew = p.grew
	p.track(c, 0)
	p.acquire(c)
	p.dispatch()
	return c
}

// A chunk that is larger than the limit passes alone. While it is stuck polling
// goes on without its partition, up to half of the limit, until it is settled.
func TestStalledPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 16 << 20
		b, of, c := budgetOf(limit, 3)
		stuck := read(of[0], 3*limit)
		if b.hasRoom() {
			t.Error("there is room beside a chunk larger than the limit")
		}
		begun := time.Now()
		if !b.wait(t.Context(), func() { b.stall(of[0]) }) || time.Since(begun) != stallTimeout {
			t.Errorf("polling goes on after %v, want %v", time.Since(begun), stallTimeout)
		}
		if !slices.Equal(c.paused, []int32{0}) {
			t.Errorf("paused are %v, want 0", c.paused)
		}
		if b.stall(of[0]) {
			t.Error("a partition is stalled twice")
		}
		small := read(of[1], limit/2-4<<20)
		if !b.hasRoom() {
			t.Error("the others have no room below half of the limit")
		}
		more := read(of[2], 4<<20)
		if b.hasRoom() {
			t.Error("the others have more than half of the limit")
		}
		small.Settle(1)
		if !b.hasRoom() || len(c.paused) != 1 {
			t.Error("what the others give back is no room for them")
		}
		stuck.Settle(1)
		if len(c.paused) > 0 || !b.hasRoom() || len(b.stalled) > 0 {
			t.Errorf("settled, and still stalled: paused %v", c.paused)
		}
		more.Settle(1)
		if b.bytes.Load() != 0 || of[0].bytes.Load() != 0 {
			t.Errorf("%d bytes in flight, of nothing", b.bytes.Load())
		}
	})
}

// Only who takes half of the limit or more is stalled, and several only as long as
// they have no more than the limit together: memory has a bound.
func TestWhoIsStalled(t *testing.T) {
	const limit = 16 << 20
	for name, tt := range map[string]struct {
		bytes []int
		want  []int32
	}{
		"below half":         {[]int{limit/2 - 16<<10}, nil},
		"half":               {[]int{limit / 2}, []int32{0}},
		"two halves":         {[]int{limit / 2, limit / 2, limit / 2}, []int32{0, 1}},
		"larger than all":    {[]int{5 * limit, limit / 2}, []int32{0}},
		"beyond the limit":   {[]int{limit, limit / 2}, []int32{0}},
		"nothing in flight":  {[]int{0, 0}, nil},
		"the second is full": {[]int{limit / 4, limit}, []int32{1}},
	} {
		b, of, c := budgetOf(limit, len(tt.bytes))
		for i, bytes := range tt.bytes {
			if bytes > 0 {
				read(of[i], bytes)
			}
		}
		for _, p := range of {
			b.stall(p)
		}
		if !slices.Equal(c.paused, tt.want) {
			t.Errorf("%s: stalled are %v, want %v", name, c.paused, tt.want)
		}
	}
}

// What decoding adds counts, and holds further chunks back, until it is released.
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1 << 20
		b, of, _ := budgetOf(limit, 1)
		chunk := read(of[0], 1000)
		chunk.Events = make([]event.Event, limit/100)
		b.admit(t.Context(), func() {}) // nothing is decoded yet
		chunk.Decoded()
		if b.hasRoom() || of[0].bytes.Load() != chunk.Bytes() || b.bytes.Load() != chunk.Bytes() {
			t.Errorf("%d bytes are in flight, want %d", b.bytes.Load(), chunk.Bytes())
		}
		admitted := make(chan struct{})
		go func() { defer close(admitted); b.admit(t.Context(), func() {}) }()
		synctest.Wait()
		select {
		case <-admitted:
			t.Error("another chunk is decoded")
		default:
		}
		chunk.Settle(1)
		<-admitted
		if b.bytes.Load() != 0 || b.grown.Load() != 0 {
			t.Errorf("%d bytes are in flight, %d of them by decoding: of nothing", b.bytes.Load(), b.grown.Load())
		}
		b.grow(limit)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		b.admit(ctx, func() {}) // a stop
	})
}

// A source dispatches nothing more while what decoding has added is over its share:
// arrays that are read are decoded one after the other then.
func TestSourceWaitsForWhatDecodingAdds(t *testing.T) {
	k := broker(t, 2)
	produce(t, k, 2, 1, 10) // a chunk of each
	cfg := ingestConfig(k)
	cfg.MaxInFlightBytes = 1 << 20
	source := newSourceOf(t, cfg, zap.NewNop())
	ctx, stop := context.WithCancel(t.Context())
	chunks, ended := make(chan *event.Chunk, 2), make(chan error)
	go func() {
		ended <- source.Run(ctx, func(c *event.Chunk) bool {
			c.Events = make([]event.Event, 1<<20/100)
			c.Decoded()
			chunks <- c
			return true
		})
	}()
	first := <-chunks
	eventually.Holds(t, "the next one waits", func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "ingest.(*budget).admit(")
	})
	if len(chunks) > 0 {
		t.Error("another chunk is dispatched")
	}
	first.Settle(1)
	(<-chunks).Settle(1)
	stop()
	if err := errors.Join(<-ended, source.Close(t.Context())); err != nil {
		t.Error(err)
	}
}

// One record larger than the limit, and its outcome never comes: the other
// partition is read on, and its own once it does.
func TestStuckChunkStopsNobodyElse(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	k := broker(t, 2)
	producer := newClient(t, k, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := producer.ProduceSync(t.Context(), &kgo.Record{Partition: 0, Value: make([]byte, 10*limit)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	cfg := ingestConfig(k)
	cfg.MaxInFlightBytes = limit
	core, logs := observer.New(zap.WarnLevel)
	h := consumeLogged(t, cfg, false, zap.New(core))
	eventually.Holds(t, "the large one is in flight", func() bool { return h.count() == 1 })
	produce(t, k, 2, 100, 10)
	other := func(c *event.Chunk) bool { return c.Partition == 1 }
	eventually.Holds(t, "the other partition is read", func() bool {
		h.settle(other)
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.seen[1]) == 100
	})
	if n := logs.FilterMessageSnippet("partition stalled").Len(); n != 1 {
		t.Errorf("%d lines say that the partition is stalled, want one", n)
	}
	if st := h.Status(); !slices.Equal(st.Stalled, []int32{0}) {
		t.Errorf("stalled are %v, want 0", st.Stalled)
	}
	if n := h.count(); n != 101 {
		t.Errorf("%d records are read, want only those of the other partition: the stalled one has no room", n)
	}
	h.settle(all)
	eventually.Holds(t, "the rest is read", func() bool { h.settle(all); return h.count() == 201 })
	if st := h.Status(); len(st.Stalled) > 0 {
		t.Errorf("stalled are %v, want none", st.Stalled)
	}
}

// A small record becomes more than may be in flight as it is decoded, and its
// outcome never comes: the other partition is read on.
func TestStuckElementsStopNobodyElse(t *testing.T) {
	t.Parallel()
	k := broker(t, 2)
	produce(t, k, 1, 1, 1)
	cfg := ingestConfig(k)
	cfg.MaxInFlightBytes = 1 << 20
	core, logs := observer.New(zap.WarnLevel)
	h := consumeDecoded(t, cfg, false, func(c *event.Chunk) {
		if c.First == 0 && c.Partition == 0 {
			c.Rejected = make([]event.Rejection, 10_000)
		}
	}, zap.New(core))
	eventually.Holds(t, "the first is in flight", func() bool { return h.count() == 1 })
	produce(t, k, 2, 100, 10)
	eventually.Holds(t, "the other partition is read", func() bool {
		h.settle(func(c *event.Chunk) bool { return c.Partition == 1 })
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.seen[1]) == 100
	})
	if n := logs.FilterMessageSnippet("partition held back").Len(); n != 1 {
		t.Errorf("%d lines say that the partition is held back, want one", n)
	}
	eventually.Holds(t, "all is read, and settled", func() bool { h.settle(all); return h.count() == 201 && h.Status().InFlight == 0 })
	if n := h.budget.grown.Load(); n != 0 {
		t.Errorf("decoding has added %d bytes, to nothing", n)
	}
}

// So it is if the partition is another copy's by then: its chunk takes the room still.
func TestStuckChunkOfLostPartitionStopsNobody(t *testing.T) {
	t.Parallel()
	for name, decode := range map[string]func(*event.Chunk){
		"a large record": nil,
		"many elements": func(c *event.Chunk) {
			if c.Partition == 0 {
				c.Rejected = make([]event.Rejection, 10_000)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := broker(t, 2)
			produce(t, k, 1, 1, 200<<10)
			cfg := ingestConfig(k)
			cfg.MaxInFlightBytes = 128 << 10
			h := consumeDecoded(t, cfg, false, decode, zap.NewNop())
			eventually.Holds(t, "the large one is in flight", func() bool { return h.count() == 1 })
			h.partitions.lost(t.Context(), h.member.client, map[string][]int32{topic: {0}})
			produce(t, k, 2, 100, 10)
			eventually.Holds(t, "the other partition is read", func() bool {
				h.settle(func(c *event.Chunk) bool { return c.Partition == 1 })
				h.mu.Lock()
				defer h.mu.Unlock()
				return len(h.seen[1]) == 100
			})
			h.settle(all)
			eventually.Holds(t, "nothing is in flight", func() bool { return h.Status().InFlight == 0 })
		})
	}
}
