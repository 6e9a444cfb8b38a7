package ingest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"twinegress/internal/eventually"
	"twinegress/internal/heaptest"
)

// packedRecord appends a record as it is in a batch.
func packedRecord(batch []byte, offset, value, headers int) []byte {
	r := []byte{0}                        // attributes
	r = binary.AppendVarint(r, 1_000_000) // timestamp
	r = binary.AppendVarint(r, int64(offset))
	r = binary.AppendVarint(r, -1) // no key
	r = binary.AppendVarint(r, int64(value))
	r = append(r, make([]byte, value)...)
	r = binary.AppendVarint(r, int64(headers))
	r = append(r, make([]byte, 2*headers)...)
	return append(binary.AppendVarint(batch, int64(len(r))), r...)
}

func packed(records, value, headers int) (batch []byte) {
	for i := range records {
		batch = packedRecord(batch, i, value, headers)
	}
	return batch
}

// What a batch takes is what the client makes of it, whatever is in it: at least
// three quarters of it, and not much more.
func TestMemory(t *testing.T) {
	for name, tt := range map[string]struct{ records, value, headers int }{
		"events":          {2000, 500, 0},
		"with headers":    {2000, 500, 5},
		"empty":           {100_000, 0, 0},
		"one large":       {1, 10 << 20, 0},
		"one, headers":    {1, 0, 500_000},
		"events, headers": {1000, 100, 1000},
	} {
		batch := packed(tt.records, tt.value, tt.headers)
		// What other tests leave may be freed meanwhile: then once more.
		for try := 0; ; try++ {
			held, got := heldBy(t, batch, tt.records), memory(batch)
			if got >= held*3/4 && got <= 3*held/2+1<<16 {
				break
			}
			if try == 10 {
				t.Errorf("%s: it takes %d, and is said to take %d", name, held, got)
				break
			}
		}
	}
}

// heldBy returns what the client holds of a batch.
func heldBy(t *testing.T, batch []byte, records int) (bytes int64) {
	t.Helper()
	before := heaptest.Bytes()
	client := kmsg.RecordBatch{NumRecords: int32(records), Magic: 2, Records: batch, LastOffsetDelta: int32(records) - 1}
	wire := client.AppendTo(nil)
	binary.BigEndian.PutUint32(wire[8:], uint32(len(wire)-12))
	fp, _ := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{DisableCRCValidation: true, Topic: topic},
		&kmsg.FetchResponseTopicPartition{RecordBatches: wire}, kgo.DefaultDecompressor(), nil)
	bytes = heaptest.Bytes() - before
	if fp.Err != nil || len(fp.Records) != records {
		t.Fatalf("the client reads %d records of %d: %v", len(fp.Records), records, fp.Err)
	}
	runtime.KeepAlive(fp)
	return bytes
}

// What isn't a batch is measured without a panic, and as no less than its bytes.
func FuzzMemory(f *testing.F) {
	f.Add(packed(3, 5, 2))
	f.Add([]byte{0x80})
	f.Add([]byte{0x02, 0x00})
	f.Add([]byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, batch []byte) {
		// A record has a byte of length and one of attributes, and a header two.
		if got, n := memory(batch), int64(len(batch)); got < n || got > n*(1+recordBytes+headerBytes) {
			t.Errorf("%d bytes take %d", n, got)
		}
	})
}

// Whatever the records have, each of them and of their headers is counted; and no
// bytes lead astray.
func TestMeasureBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nullable := rapid.Custom(func(t *rapid.T) []byte {
			if rapid.Bool().Draw(t, "nil") {
				return nil
			}
			return make([]byte, rapid.IntRange(0, 300).Draw(t, "bytes"))
		})
		var batch []byte
		var records, headers int64
		for range rapid.IntRange(0, 20).Draw(t, "records") {
			r := kmsg.Record{
				TimestampDelta64: rapid.Int64().Draw(t, "timestamp"), OffsetDelta: rapid.Int32().Draw(t, "offset"),
				Key: nullable.Draw(t, "key"), Value: nullable.Draw(t, "value"),
			}
			for range rapid.IntRange(0, 80).Draw(t, "headers") {
				r.Headers = append(r.Headers, kmsg.Header{Key: rapid.StringN(0, 3, 3).Draw(t, "name"), Value: nullable.Draw(t, "header")})
			}
			body := r.AppendTo(nil)[1:] // behind the length, which is 0
			batch = append(binary.AppendVarint(batch, int64(len(body))), body...)
			records, headers = records+1, headers+int64(len(r.Headers))
		}
		want := int64(len(batch)) + recordBytes*records + headerBytes*headers
		if got := measureBatch(batch, true); got != want {
			t.Fatalf("%d bytes with %d records and %d headers take %d, want %d", len(batch), records, headers, got, want)
		}
		if got := memory(batch); got < want {
			t.Fatalf("%d, want at least %d", got, want)
		}
		for range rapid.IntRange(0, 5).Draw(t, "changes") {
			if n := len(batch); n > 0 {
				batch[rapid.IntRange(0, n-1).Draw(t, "at")] = rapid.Byte().Draw(t, "byte")
			}
		}
		memory(batch[:rapid.IntRange(0, len(batch)).Draw(t, "cut")])
	})
}

// A batch at the limit is unpacked, one above is refused, and its bytes are free.
func TestUnpackLimit(t *testing.T) {
	batch := packed(10, 1<<20, 0)
	taken := memory(batch)
	for limit, want := range map[int64]error{taken: nil, taken - 1: kgo.ErrMaxDecompress, 1 << 20: kgo.ErrMaxDecompress} {
		u, err := newUnpacker(limit)
		if err != nil {
			t.Fatal(err)
		}
		for codec, compression := range map[kgo.CompressionCodecType]kgo.CompressionCodec{
			kgo.CodecGzip: kgo.GzipCompression(), kgo.CodecSnappy: kgo.SnappyCompression(),
			kgo.CodecLz4: kgo.Lz4Compression(), kgo.CodecZstd: kgo.ZstdCompression(),
		} {
			compressor, err := kgo.DefaultCompressor(compression)
			if err != nil {
				t.Fatal(err)
			}
			src, _ := compressor.Compress(new(bytes.Buffer), batch)
			got, err := u.Decompress(src, codec)
			if !errors.Is(err, want) || err == nil && len(got) != len(batch) {
				t.Errorf("limit %d: %d bytes, %v, want %v", limit, len(got), err, want)
			}
			if err == nil {
				if u.bytes.Load() < taken-10*recordBytes {
					t.Errorf("%d bytes are unpacked, want some %d", u.bytes.Load(), taken)
				}
				u.PutDecompressBytes(got[:cap(got)])
			}
			if n := u.bytes.Load(); n != 0 {
				t.Errorf("limit %d: %d bytes are unpacked, want none", limit, n)
			}
		}
	}
}

// What is packed with a window larger than the limit is unpacked, if it has no more
// than that itself. So large a window is what high levels announce for anything.
func TestWindowBeyondTheLimit(t *testing.T) {
	for name, tt := range map[string]struct {
		window, records int
		ok              bool
	}{
		"small, in a window of a MiB":       {1 << 20, 1000, true},
		"small, in the largest window":      {maxZstdWindow, 1000, true},
		"larger than the first room for it": {maxZstdWindow, 10_000, true},
		"larger than the limit":             {maxZstdWindow, 40_000, false},
		"of a larger window":                {2 * maxZstdWindow, 1000, false},
	} {
		var wire bytes.Buffer
		packer, err := zstd.NewWriter(&wire, zstd.WithWindowSize(tt.window))
		if err != nil {
			t.Fatal(err)
		}
		batch := packed(tt.records, 200, 0)
		for _, half := range [][]byte{batch[:len(batch)/2], batch[len(batch)/2:]} { // as a stream: its size is not announced
			if _, err := packer.Write(half); err != nil {
				t.Fatal(err)
			}
			if err := packer.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := packer.Close(); err != nil {
			t.Fatal(err)
		}
		u, err := newUnpacker(6 << 20)
		if err != nil {
			t.Fatal(err)
		}
		got, err := u.Decompress(wire.Bytes(), kgo.CodecZstd)
		if ok := err == nil; ok != tt.ok || ok && !bytes.Equal(got, batch) || !ok && !errors.Is(err, kgo.ErrMaxDecompress) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(got), len(batch), err)
		}
		if cap(got) > 6<<20 {
			t.Errorf("%s: it takes %d bytes", name, cap(got))
		}
	}
}

// One fetch brings many batches that are packed to a thousandth. They are unpacked
// in turn, as there is room: the client would unpack all of them at once.
func TestBatchesAreUnpackedInTurn(t *testing.T) {
	t.Parallel()
	const batches, size = 12, 8 << 20
	k := broker(t, 1)
	for range batches {
		produceBatch(t, k, kgo.ZstdCompression(), []*kgo.Record{{Value: make([]byte, size)}})
	}
	cfg := ingestConfig(k)
	cfg.MaxInFlightBytes = 1 << 30
	var most mostUnpacked
	h := consume(t, cfg, true, kgo.WithHooks(&most))
	most.unpacker.Store(h.poller.unpacker)
	eventually.Holds(t, "all are read", func() bool { return h.count() == batches })
	if n, bound := most.bytes.Load(), int64(maxUnpacked+16<<20); n > bound {
		t.Errorf("%d MiB are unpacked at once, want at most %d", n>>20, bound>>20)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for offset, times := range h.seen[0] {
		if times != 1 {
			t.Errorf("offset %d is read %d times", offset, times)
		}
	}
}

// Each broker's batches are unpacked on a goroutine of their own. Before it is unpacked
// nobody knows what a batch takes.
func TestUnpackedFromSeveralBrokers(t *testing.T) {
	const limit, size = 16 << 20, 12 << 20
	synctest.Test(t, func(t *testing.T) {
		u, err := newUnpacker(limit)
		if err != nil {
			t.Fatal(err)
		}
		slow := &slowly{proceed: make(chan int)}
		u.Decompressor = slow
		var unpacked, refused atomic.Int32
		for range 10 {
			go func() {
				if _, err := u.Decompress(nil, kgo.CodecZstd); errors.Is(err, errNoRoom) {
					refused.Add(1)
				} else if err == nil {
					unpacked.Add(1)
				}
			}()
		}
		synctest.Wait()
		if n := slow.begun.Load(); n != maxUnpacked/limit {
			t.Errorf("%d are unpacked at once, want %d", n, maxUnpacked/limit)
		}
		for refused.Load()+unpacked.Load() < 10 {
			slow.proceed <- size
			synctest.Wait()
			if n := u.bytes.Load() + u.unpacking*limit; n > maxUnpacked+limit {
				t.Errorf("%d MiB are unpacked or may be, want at most %d", n>>20, (maxUnpacked+limit)>>20)
			}
		}
		if n := unpacked.Load(); n != 4 || u.bytes.Load() != 4*size { // of three there is room for another
			t.Errorf("%d are unpacked, and take %d MiB", n, u.bytes.Load()>>20)
		}
	})
}

// slowly unpacks a batch to as many bytes as the test says.
type slowly struct {
	kgo.Decompressor
	begun   atomic.Int32
	proceed chan int
}

func (s *slowly) Decompress([]byte, kgo.CompressionCodecType) ([]byte, error) {
	s.begun.Add(1)
	return make([]byte, <-s.proceed), nil
}

// mostUnpacked is a hook that records how much is unpacked at once.
type mostUnpacked struct {
	unpacker atomic.Pointer[unpacker]
	bytes    atomic.Int64
}

func (m *mostUnpacked) OnFetchBatchRead(kgo.BrokerMetadata, string, int32, kgo.FetchBatchMetrics) {
	if u := m.unpacker.Load(); u != nil {
		for seen, now := m.bytes.Load(), u.bytes.Load(); now > seen && !m.bytes.CompareAndSwap(seen, now); seen = m.bytes.Load() {
		}
	}
}

// What the client threw away without returning it is forgotten once there is room
// for nothing more.
func TestUnpackedIsForgotten(t *testing.T) {
	t.Parallel()
	k := broker(t, 1)
	cfg := ingestConfig(k)
	h := consume(t, cfg, true)
	h.poller.unpacker.bytes.Store(1 << 40)
	produceBatch(t, k, kgo.ZstdCompression(), []*kgo.Record{{Value: make([]byte, 1000)}})
	eventually.Holds(t, "a compressed batch is read", func() bool { return h.count() == 1 })
}

// What each batch of a compressed topic costs, while other goroutines unpack as well.
func BenchmarkUnpack(b *testing.B) {
	u, err := newUnpacker(16 << 20)
	if err != nil {
		b.Fatal(err)
	}
	compressor, err := kgo.DefaultCompressor(kgo.Lz4Compression())
	if err != nil {
		b.Fatal(err)
	}
	batch := packed(200, 500, 0)
	src, codec := compressor.Compress(new(bytes.Buffer), batch)
	b.ReportAllocs()
	b.SetBytes(int64(len(batch)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			got, err := u.Decompress(src, codec)
			if err != nil {
				b.Fatal(err)
			}
			u.PutDecompressBytes(got)
		}
	})
}

// What each record of a compressed topic costs more.
func BenchmarkMemory(b *testing.B) {
	for name, batch := range map[string][]byte{"plain": packed(2000, 500, 0), "headers": packed(2000, 500, 3)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				memory(batch)
			}
		})
	}
}
