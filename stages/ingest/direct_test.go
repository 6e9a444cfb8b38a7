package ingest

import (
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
)

// directReader polls a Direct, and checks that each partition is read without a gap.
type directReader struct {
	*Direct
	t          *testing.T
	from       map[int32]int64
	seen       map[int32][]int64
	tooLarge   int64
	outOfRange bool
}

func readDirect(t *testing.T, k *kfake.Cluster, limit config.ByteSize) *directReader {
	t.Helper()
	c := ingestConfig(k)
	if limit > 0 {
		c.Limits.BatchBytes = limit
	}
	d, err := NewDirect(c, []kgo.Opt{kgo.SeedBrokers(k.ListenAddrs()...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return &directReader{Direct: d, t: t, from: make(map[int32]int64), seen: make(map[int32][]int64)}
}

func (r *directReader) read(partition int32, from int64) {
	r.from[partition], r.seen[partition] = from, nil
	r.Read(topic, partition, from)
}

// until polls until that holds.
func (r *directReader) until(what string, holds func() bool) {
	r.t.Helper()
	for polls := 0; !holds(); polls++ {
		if polls == 20 { // each of a second at most
			r.t.Fatalf("never: %s", what)
		}
		r.poll()
	}
}

func (r *directReader) poll() {
	r.t.Helper()
	for _, f := range r.Poll(r.t.Context(), 1<<20) {
		if f.Err != nil {
			r.t.Error(f.Err)
		}
		if f.First != r.from[f.Partition] {
			r.t.Errorf("partition %d is read from %d, want %d", f.Partition, f.First, r.from[f.Partition])
		}
		r.from[f.Partition] = f.Next
		r.tooLarge += f.TooLarge
		r.outOfRange = r.outOfRange || f.OutOfRange
		o := &event.Ownership{Topic: topic, Partition: f.Partition}
		for _, c := range Cut(f, o, (*event.Chunk).Free) {
			if c.Owned != o || c.First < f.First || c.Last >= f.Next {
				r.t.Errorf("a chunk of %d..%d was read as %d..%d", c.First, c.Last, f.First, f.Next)
			}
			for _, record := range c.Records {
				r.seen[f.Partition] = append(r.seen[f.Partition], record.Offset)
			}
			c.Settle(1)
		}
	}
}

func offsetsTo(from, to int64) (offsets []int64) {
	for o := from; o < to; o++ {
		offsets = append(offsets, o)
	}
	return offsets
}

// Partitions are read from where they are told to, again and again, forwards and
// back, also before the first answer has come; each without a gap or a repeat.
func TestDirect(t *testing.T) {
	t.Parallel()
	const n = 1000
	k := broker(t, 3)
	produce(t, k, 3, n, 100)
	r := readDirect(t, k, 0)
	for _, from := range []int64{700, 10, 900} { // before anything is known of it
		r.read(0, from)
	}
	r.read(1, 0)
	r.until("both are read", func() bool { return r.from[0] == n && r.from[1] == n })
	if !slices.Equal(r.seen[0], offsetsTo(900, n)) || !slices.Equal(r.seen[1], offsetsTo(0, n)) {
		t.Errorf("read %d and %d records", len(r.seen[0]), len(r.seen[1]))
	}
	r.Drop(topic, 1)
	for _, from := range []int64{500, 0, 999} {
		r.read(0, from)
		r.until("it is read again", func() bool { return r.from[0] == n })
		if !slices.Equal(r.seen[0], offsetsTo(from, n)) {
			t.Errorf("from %d: read %v", from, r.seen[0])
		}
	}
	produce(t, k, 3, 1, 100)
	r.until("what comes later is read", func() bool { return r.from[0] == n+1 })
	if len(r.seen[1]) != n || len(r.seen[2]) != 0 {
		t.Error("partitions are read that aren't to be")
	}
	r.Pause(topic, 0)
	produce(t, k, 3, 1, 100)
	r.read(2, n)
	r.until("the others are read", func() bool { return r.from[2] == n+2 })
	if r.from[0] != n+1 {
		t.Error("a paused partition is read")
	}
	r.Resume(topic, 0)
	r.until("it is read on", func() bool { return r.from[0] == n+2 })
}

// Batches that take too much memory, or that nobody can unpack, are stepped over,
// whatever is before and behind them, also where the client throws their error away.
func TestDirectStepsOver(t *testing.T) {
	t.Parallel()
	const limit = 100_000
	k := broker(t, 2)
	small := func() []*kgo.Record { return []*kgo.Record{{Value: make([]byte, 10)}, {Value: make([]byte, 10)}} }
	produceBatch(t, k, kgo.ZstdCompression(), []*kgo.Record{{Value: make([]byte, limit+1)}}) // 0
	produceBatch(t, k, kgo.ZstdCompression(), small())                                       // 1, 2
	produceBatch(t, k, kgo.ZstdCompression(), []*kgo.Record{{Value: make([]byte, 2*limit)}}) // 3
	produceBatch(t, k, kgo.ZstdCompression(), []*kgo.Record{{Value: make([]byte, 2*limit)}}) // 4
	produceBatch(t, k, kgo.ZstdCompression(), small())                                       // 5, 6
	produceBatch(t, k, kgo.ZstdCompression(), []*kgo.Record{{Value: make([]byte, limit*2)}}) // 7
	r := readDirect(t, k, limit)
	for range 3 {
		r.tooLarge = 0
		r.read(0, 0)
		r.until("all is read", func() bool { return r.from[0] == 8 })
		if !slices.Equal(r.seen[0], []int64{1, 2, 5, 6}) || r.tooLarge != 4 {
			t.Errorf("read %v, and %d offsets too large", r.seen[0], r.tooLarge)
		}
	}

	produce(t, k, 2, 1, 10) // 8
	r.read(1, 0)
	r.until("another partition is read", func() bool { return r.from[1] == 1 })
	r.read(0, 3)
	eventually.Holds(t, "the client has found the batch", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.damaged) == 1
	})
	r.read(1, 0) // the move ends the fetches, and what they have brought
	r.until("all is read, though another partition was moved", func() bool { return r.from[0] == 9 })
}

// Offsets that the brokers don't have are told, and a move goes on.
func TestDirectOutOfRange(t *testing.T) {
	t.Parallel()
	k := broker(t, 1)
	produce(t, k, 1, 100, 10)
	deleteBefore(t, k, 60)
	r := readDirect(t, k, 0)
	for _, at := range []int64{10, 5000} {
		r.outOfRange = false
		r.read(0, at)
		r.until("it is said", func() bool { return r.outOfRange })
		r.read(0, 60)
		r.until("it is read on", func() bool { return r.from[0] == 100 })
		if !slices.Equal(r.seen[0], offsetsTo(60, 100)) {
			t.Errorf("read %v", r.seen[0])
		}
	}
}
