package ingest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// recordBytes and headerBytes are what the client takes for each record and
	// header of a batch, beyond the batch's unpacked bytes: 7 of these make a
	// record, and 2 a header.
	recordBytes = 176
	headerBytes = 48

	// maxUnpacked is how much may be unpacked before another batch is: what one fetch of
	// each broker is meant to bring, all together, and half as much again since that is
	// an estimate.
	maxUnpacked = unpackedBytes * 3 / 2

	// maxZstdWindow is the largest zstd window that brokers take. Producers that pack in
	// a stream announce their level's, up to this, for whatever they pack.
	maxZstdWindow = 128 << 20
)

// errNoRoom is a batch that is not unpacked now: the client fetches it again. One
// fetch can bring hundreds of batches of some kilobytes each that unpack to the
// limit, and the client unpacks all of them before it returns the first.
var errNoRoom = errors.New("as much is unpacked as may be")

// unpacker bounds what the client unpacks: each batch, and all of them together
// that are not polled yet. The client's own bound (kgo.MaxDecompressBatchBytes) is
// of the first, and of bytes alone. It is the client's pool for unpacked bytes,
// too: that is how it learns which are free again.
type unpacker struct {
	kgo.Decompressor // the client's own
	client           *kgo.Client
	wide             *zstd.Decoder // for windows larger than limit, which the client's own refuses
	limit            int64         // of one batch, in memory

	pool   sync.Pool    // of *[]byte
	bytes  atomic.Int64 // unpacked, and not free again
	mu     sync.Mutex
	beyond map[*byte]int64 // of batches that take more than twice their bytes, what else they take
	// unpacking is how many batches are being unpacked: the client has a goroutine for
	// each broker. ended is broadcast when it falls.
	unpacking int64
	ended     sync.Cond
}

var _ kgo.PoolDecompressBytes = (*unpacker)(nil)

func newUnpacker(limit int64) (*unpacker, error) {
	wide, err := zstd.NewReader(nil, zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(1),
		zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, err
	}
	u := &unpacker{wide: wide, limit: limit, beyond: make(map[*byte]int64)}
	u.ended.L = &u.mu
	// kgo.DefaultDecompressor has no bound. The one that a client makes for itself
	// does, and is the same otherwise.
	client, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(int(limit)), kgo.WithPools(u))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	bounded, is := client.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !is {
		return nil, fmt.Errorf("BUG: the Kafka client has no decompressor, but %T", client.OptValue(kgo.WithDecompressor))
	}
	u.Decompressor = bounded
	return u, nil
}

// OnNewClient implements kgo.HookNewClient.
func (u *unpacker) OnNewClient(client *kgo.Client) { u.client = client }

// Decompress implements kgo.Decompressor. kgo.ErrMaxDecompress stops the partition
// until the batch is stepped over (seeker). That is every error but errNoRoom: the
// batch has its checksum, so it would be the same the next time, and for ever.
func (u *unpacker) Decompress(packed []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	switch {
	case codec == kgo.CodecNone:
		return packed, nil
	case codec == codecRefused:
		return nil, kgo.ErrMaxDecompress
	case !u.begin():
		return nil, errNoRoom
	}
	batch, err := u.unpack(packed, codec)
	if err != nil {
		u.end(nil, 0)
		return nil, fmt.Errorf("%w: %w", kgo.ErrMaxDecompress, err)
	}
	taken := memory(batch)
	if taken > u.limit {
		u.put(batch)
		u.end(nil, 0)
		return nil, kgo.ErrMaxDecompress
	}
	u.end(batch, taken)
	return batch, nil
}

// begin reports whether another batch may be unpacked. What it takes isn't known
// before, so it counts as the limit until end: if that is more than what is left, begin
// waits for the others that are being unpacked. So all of them together take no more
// than the room and one batch, of however many brokers.
func (u *unpacker) begin() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for u.unpacking > 0 && u.bytes.Load()+(u.unpacking+1)*u.limit > maxUnpacked {
		u.ended.Wait()
	}
	if u.bytes.Load() >= maxUnpacked {
		return false
	}
	u.unpacking++
	return true
}

// end counts what an unpacked batch takes.
func (u *unpacker) end(batch []byte, taken int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unpacking--
	u.ended.Broadcast()
	bytes := int64(cap(batch))
	if more := taken - bytes; bytes > 0 && more > bytes {
		u.beyond[&batch[:1][0]] = more
		bytes = taken
	}
	u.bytes.Add(bytes)
}

func (u *unpacker) unpack(packed []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	if codec == codecMeasured { // the copy is what comes back once it is free
		batch := u.GetDecompressBytes(packed, codec)
		return append(slices.Grow(batch, len(packed)), packed...), nil
	}
	batch, err := u.Decompressor.Decompress(packed, codec)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return u.unpackWide(packed)
	}
	return batch, err
}

// unpackWide unpacks what was packed with a large window. No memory is taken for
// that: a decoder that has all of a batch looks back in what it has unpacked. But it
// takes no limit of its output below its limit of windows, only the room that it is
// given.
func (u *unpacker) unpackWide(packed []byte) ([]byte, error) {
	for size := min(u.limit, max(1<<20, 8*int64(len(packed)))); ; size = min(u.limit, 4*size) {
		batch, err := u.wide.DecodeAll(packed, make([]byte, 0, size))
		if size == u.limit || !errors.Is(err, zstd.ErrDecoderSizeExceeded) {
			return batch, err
		}
	}
}

// drained forgets what is unpacked, if the client has nothing that isn't polled.
// The client doesn't return what it throws away, such as at a rebalance, and so
// the count only grows: until it is full, nothing is unpacked any more, what there
// was is polled, and it starts anew.
func (u *unpacker) drained() {
	if u.client.BufferedFetchRecords() > 0 {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	clear(u.beyond)
	u.bytes.Store(0)
}

// GetDecompressBytes returns a slice to unpack into, of any size: the client grows
// it where it must, and puts the larger one. It has no length, which is how
// PutDecompressBytes knows it if nothing was unpacked.
func (u *unpacker) GetDecompressBytes([]byte, kgo.CompressionCodecType) []byte {
	if s, _ := u.pool.Get().(*[]byte); s != nil {
		return (*s)[:0]
	}
	return nil
}

// PutDecompressBytes implements kgo.PoolDecompressBytes.
func (u *unpacker) PutDecompressBytes(s []byte) {
	if len(s) > 0 {
		u.release(s)
	}
	u.put(s)
}

func (u *unpacker) release(s []byte) {
	bytes := int64(cap(s))
	u.mu.Lock()
	if more, is := u.beyond[&s[0]]; is {
		delete(u.beyond, &s[0])
		bytes += more
	}
	u.mu.Unlock()
	if u.bytes.Add(-bytes) < 0 {
		u.bytes.Store(0) // of before drained
	}
}

func (u *unpacker) put(s []byte) {
	if cap(s) > 0 && cap(s) <= maxPooledBytes {
		u.pool.Put(&s)
	}
}

// memory returns what an unpacked batch takes once the client has read its records.
// Most have few headers or none: that shows at the beginning of each record, whose
// end needs not be looked for.
func memory(batch []byte) int64 {
	if taken := measureBatch(batch, false); taken <= 2*int64(len(batch)) {
		return taken
	}
	return measureBatch(batch, true)
}

// measureBatch returns what a batch takes, exactly, or with as many headers as there
// can be in what is left of each record behind its value. It sees every record of a
// compressed topic, so it walks by index: slices of slices take twice the time.
func measureBatch(batch []byte, exact bool) int64 {
	taken := int64(len(batch))
	for next := 0; next < len(batch); {
		length, at := varint(batch, next)
		if at == 0 || length <= 0 || length > int64(len(batch)-at) {
			break // the client finds the same
		}
		next = at + int(length)
		taken += recordBytes
		record := batch[at:next]
		at = skipVarint(record, 1)               // behind the attributes: timestamp
		at = skipVarint(record, at)              // offset
		at = skipBytes(record, at)               // key
		if at = skipBytes(record, at); at == 0 { // value
			continue
		}
		// What is left is the number of headers, and headers.
		headers := int64(len(record)-at) / 2 // one has two bytes or more
		if exact {
			headers = declared(record, at)
		}
		taken += headerBytes * headers
	}
	return taken
}

// declared returns for how many headers the client makes room: as many as are told,
// if there is a byte for each.
func declared(record []byte, at int) int64 {
	n, _ := varint(record, at)
	if n > int64(len(record)-at) {
		return 0
	}
	return max(n, 0)
}

// skipBytes returns the index behind bytes that have their length before them; 0 if
// they aren't there. Nil has the length -1.
func skipBytes(b []byte, at int) int {
	length, at := varint(b, at)
	if at == 0 || length > int64(len(b)-at) {
		return 0
	}
	return at + int(max(length, 0))
}

func skipVarint(b []byte, at int) int {
	for at < len(b) && b[at] >= 0x80 {
		at++
	}
	return at + 1
}

// varint returns the number at an index, and the index behind it; 0 if there is none.
// Most numbers have one byte or two.
func varint(b []byte, at int) (value int64, next int) {
	if at < len(b) && b[at] < 0x80 {
		return int64(b[at]>>1) ^ -int64(b[at]&1), at + 1
	}
	return longVarint(b, at)
}

func longVarint(b []byte, at int) (value int64, next int) {
	if len(b)-at < 2 {
		return 0, 0
	}
	if b[at+1] < 0x80 {
		u := uint64(b[at]&0x7f) | uint64(b[at+1])<<7
		return int64(u>>1) ^ -int64(u&1), at + 2
	}
	value, n := binary.Varint(b[at:])
	if n <= 0 {
		return 0, 0
	}
	return value, at + n
}
