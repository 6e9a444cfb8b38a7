package ingest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"testing"
	"testing/iotest"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"twinegress/internal/eventually"
)

// wireBatch returns a batch as brokers send it, which is told to have so many records.
func wireBatch(codec kgo.CompressionCodecType, told int, records []byte) []byte {
	b := kmsg.RecordBatch{Magic: 2, Attributes: int16(codec), NumRecords: int32(told), LastOffsetDelta: int32(told) - 1, Records: records}
	wire := b.AppendTo(nil)
	binary.BigEndian.PutUint32(wire[8:], uint32(len(wire)-12))
	binary.BigEndian.PutUint32(wire[batchCRC:], crc32.Checksum(wire[batchAttributes:], castagnoli))
	return wire
}

// At the limit a batch that isn't compressed is read, and above it refused, whatever
// it is that takes the memory. What takes little is left as it is.
func TestGuard(t *testing.T) {
	const none, zstd = kgo.CodecNone, kgo.CodecZstd
	for name, tt := range map[string]struct {
		codec   kgo.CompressionCodecType
		told    int
		records []byte
		taken   int // besides the records' bytes
		want    kgo.CompressionCodecType
	}{
		"events":                      {none, 1000, packed(1000, 500, 0), 1000 * recordBytes, none},
		"a large event":               {none, 1, packed(1, 2<<20, 0), recordBytes, none},
		"empty records":               {none, 10_000, packed(10_000, 0, 0), 10_000 * recordBytes, codecMeasured},
		"headers":                     {none, 1, packed(1, 0, 40_000), recordBytes + 40_000*headerBytes, codecMeasured},
		"more records than there are": {none, 10_000, packed(100, 1000, 0), 10_000 * recordBytes, codecMeasured},
		"and many more":               {none, 1 << 30, packed(1, 1<<20, 0), recordBytes << 20, codecRefused},
		"compressed":                  {zstd, 1000, nil, 1000 * recordBytes, zstd},
	} {
		limit := int64(len(tt.records) + tt.taken)
		for at, want := range map[int64]kgo.CompressionCodecType{limit: tt.want, limit + 1: tt.want, limit - 1: codecRefused} {
			before := wireBatch(tt.codec, tt.told, tt.records)
			after := bytes.Clone(before)
			guardBatches(after, at)
			if got := kgo.CompressionCodecType(after[batchAttributes+1] & codecMask); got != want {
				t.Errorf("%s, limit %d of %d: codec %d, want %d", name, at, limit, got, want)
			}
			if want == tt.codec && !bytes.Equal(before, after) {
				t.Errorf("%s: it is not as it was", name)
			}
			if sum := crc32.Checksum(after[batchAttributes:], castagnoli); sum != binary.BigEndian.Uint32(after[batchCRC:]) {
				t.Errorf("%s: its checksum is wrong", name)
			}
		}
	}
}

// A damaged batch stays damaged, and is not taken for one to step over.
func TestGuardLeavesDamageAlone(t *testing.T) {
	batch := wireBatch(kgo.CodecNone, 1, packed(1, 1000, 0))
	batch[len(batch)-1]++
	before := bytes.Clone(batch)
	if guardBatches(batch, 1); !bytes.Equal(batch, before) {
		t.Error("it is changed")
	}
}

// A batch behind others is seen; no bytes lead astray.
func FuzzGuard(f *testing.F) {
	small, large := wireBatch(kgo.CodecNone, 3, packed(3, 5, 2)), wireBatch(kgo.CodecNone, 1, packed(1, 3000, 0))
	f.Add(append(bytes.Clone(small), large...))
	f.Add(append(bytes.Clone(large), large[:100]...))
	f.Fuzz(func(t *testing.T, batches []byte) {
		guard(append([]byte{0, 0, 0, 0, 0}, batches...), 12, 1000)
		all := append(bytes.Clone(small), large...)
		all = append(all, batches...)
		guardBatches(all, 2000)
		if got := kgo.CompressionCodecType(all[len(small)+batchAttributes+1] & codecMask); got != codecRefused {
			t.Errorf("the second batch has the codec %d", got)
		}
	})
}

// What is told comes through as it is, however it is cut.
func TestGuardedConn(t *testing.T) {
	var sent []byte
	for _, size := range []int{1, 4, 0, 100_000, 5000, 70_000} {
		sent = binary.BigEndian.AppendUint32(sent, uint32(size))
		sent = append(sent, bytes.Repeat([]byte{byte(size)}, size)...)
	}
	for name, reader := range map[string]io.Reader{
		"at once": bytes.NewReader(sent), "byte by byte": iotest.OneByteReader(bytes.NewReader(sent)), "by halves": iotest.HalfReader(bytes.NewReader(sent)),
	} {
		for _, room := range []int{1, 3, 4096, 200_000} {
			reader := reader
			if s, is := reader.(io.Seeker); is {
				_, _ = s.Seek(0, io.SeekStart)
			} else if room != 4096 {
				continue
			}
			c := &guardedConn{Conn: readConn{Reader: reader}, limit: 1}
			_, _ = c.Write([]byte{0, 0, 0, 4, 0, fetchKey, 0, 12})
			var got []byte
			for b := make([]byte, room); ; {
				n, err := c.Read(b)
				got = append(got, b[:n]...)
				if err != nil {
					if !errors.Is(err, io.EOF) {
						t.Error(err)
					}
					break
				}
			}
			if !bytes.Equal(got, sent) {
				t.Errorf("%s, %d at a time: %d bytes of %d came, or others", name, room, len(got), len(sent))
			}
		}
	}
}

type readConn struct {
	net.Conn
	io.Reader
}

func (c readConn) Read(b []byte) (int, error) { return c.Reader.Read(b) }
func (readConn) Write(b []byte) (int, error)  { return len(b), nil }

// One fetch brings many batches that aren't compressed and take twenty times their
// bytes. The client has them in turn.
func TestBatchesAreReadInTurn(t *testing.T) {
	t.Parallel()
	const batches, records = 12, 60_000
	k := broker(t, 1)
	for range batches {
		produceBatch(t, k, kgo.NoCompression(), repeated(records, func() *kgo.Record { return &kgo.Record{} }))
	}
	cfg := ingestConfig(k)
	cfg.MaxInFlightBytes = 1 << 30
	var most mostUnpacked
	h := consume(t, cfg, true, kgo.WithHooks(&most), kgo.FetchMaxBytes(fetchBytes), kgo.FetchMaxPartitionBytes(fetchBytes))
	most.unpacker.Store(h.poller.unpacker)
	eventually.Holds(t, "all are read", func() bool { return h.count() == batches*records })
	if n, bound := most.bytes.Load(), int64(maxUnpacked+records*(recordBytes+10)); n > bound || n < unpackedBytes {
		t.Errorf("%d MiB are read at once, want at most %d", n>>20, bound>>20)
	}
}

// What each batch costs more that isn't compressed.
func BenchmarkGuard(b *testing.B) {
	var batches []byte
	for range 64 {
		batches = append(batches, wireBatch(kgo.CodecNone, 200, packed(200, 500, 0))...)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(batches)))
	for b.Loop() {
		guardBatches(batches, 16<<20)
	}
}
