package ingest

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The client asks for a decompressor only for what is compressed. A batch that isn't
// has no bound there: 1 MiB of empty records takes 26 MiB, and the client has no
// hook before it takes them. So the guard looks at what a fetch brings as it comes
// from the connection, and marks batches with codecs that Kafka doesn't have: the
// client then takes them to the unpacker.
const (
	// codecMeasured is of a batch that isn't compressed, and takes more than twice its
	// bytes: the unpacker counts it.
	codecMeasured = 5
	// codecRefused is of a batch that takes more than the limit, whatever its codec.
	codecRefused = 7

	codecNone, codecMask = byte(kgo.CodecNone), byte(7)

	// fetchKey is the number of the fetch request in Kafka's protocol, and
	// flexibleFetch the first version whose responses have tags in their header.
	fetchKey, flexibleFetch = 1, 12
	// minGuarded is the size below which a response can't take much.
	minGuarded = 64 << 10

	// Where the fields of a batch are.
	batchMagic, batchCRC, batchAttributes, batchCount, batchRecords = 16, 17, 21, 57, 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type dialer = func(ctx context.Context, network, host string) (net.Conn, error)

// guarded returns the option to connect as connect says, with a guard on each
// connection.
func guarded(connect []kgo.Opt, limit int64) (kgo.Opt, error) {
	client, err := kgo.NewClient(connect...) // knows the dialer that the options mean, or its own
	if err != nil {
		return nil, err
	}
	defer client.Close()
	dial, is := client.OptValue(kgo.Dialer).(dialer)
	if !is {
		return nil, fmt.Errorf("BUG: the Kafka client has no dialer, but %T", client.OptValue(kgo.Dialer))
	}
	return kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
		conn, err := dial(ctx, network, host)
		if err != nil {
			return nil, err
		}
		return &guardedConn{Conn: conn, limit: limit}, nil
	}), nil
}

// guardedConn is a connection to a broker that is seen response by response: the
// client has made room for a response when it asks for all of it. The client has a
// connection for fetches alone.
type guardedConn struct {
	net.Conn
	limit int64        // of one batch, in memory
	fetch atomic.Int32 // the version of fetches, if there are some

	// Of the response that is read: its size, how much of that is read, and how much
	// of the response is left.
	size      [4]byte
	sizeRead  int
	left      int
	untouched bool // nothing of it is read
}

// Write implements net.Conn. The client writes each request at once.
func (c *guardedConn) Write(b []byte) (int, error) {
	if len(b) >= 8 && binary.BigEndian.Uint16(b[4:]) == fetchKey {
		c.fetch.Store(int32(binary.BigEndian.Uint16(b[6:])))
	}
	return c.Conn.Write(b)
}

// Read implements net.Conn. It returns the size of a response alone, so that the
// client asks for the rest with the room that it makes for it, and not with its
// buffer of some kilobytes.
func (c *guardedConn) Read(b []byte) (n int, err error) {
	if c.left == 0 {
		n, err = c.Conn.Read(b[:min(len(b), len(c.size)-c.sizeRead)])
		c.sizeRead += copy(c.size[c.sizeRead:], b[:n])
		if c.sizeRead == len(c.size) {
			c.sizeRead, c.left, c.untouched = 0, int(binary.BigEndian.Uint32(c.size[:])), true
		}
		return n, err
	}
	whole := c.untouched && len(b) >= c.left
	b = b[:min(len(b), c.left)]
	if version := c.fetch.Load(); whole && version > 0 && len(b) >= minGuarded {
		if n, err = io.ReadFull(c.Conn, b); err == nil {
			guard(b, int16(version), c.limit) //nolint:gosec // it was one
		}
	} else {
		n, err = c.Conn.Read(b)
	}
	c.left, c.untouched = c.left-n, c.untouched && n == 0
	return n, err
}

// guard marks batches of a fetch's response. What it doesn't understand the client
// doesn't, either.
func guard(response []byte, version int16, limit int64) {
	const correlation = 4
	body := response[correlation:]
	if version >= flexibleFetch {
		if body[0] > 0 {
			return // tags, of which there are none until today
		}
		body = body[1:]
	}
	fetched := kmsg.FetchResponse{Version: version}
	if fetched.UnsafeReadFrom(body) != nil {
		return
	}
	for i := range fetched.Topics {
		for _, p := range fetched.Topics[i].Partitions {
			guardBatches(p.RecordBatches, limit)
		}
	}
}

// guardBatches marks batches of a partition. The last one may be cut off.
func guardBatches(batches []byte, limit int64) {
	for len(batches) >= batchRecords {
		length := int64(binary.BigEndian.Uint32(batches[8:])) + 12
		if length < batchRecords || length > int64(len(batches)) {
			return
		}
		batch := batches[:length]
		batches = batches[length:]
		if batch[batchMagic] != 2 {
			continue // of Kafka before 0.11; its records take less than theirs do
		}
		if codec := codecFor(batch, limit); codec > 0 {
			mark(batch, codec)
		}
	}
}

// codecFor returns with which codec a batch is to be marked; 0 if with none.
func codecFor(batch []byte, limit int64) byte {
	codec, records := batch[batchAttributes+1]&codecMask, batch[batchRecords:]
	// The client makes room for as many records as are told, before it looks for them.
	taken := recordBytes * int64(binary.BigEndian.Uint32(batch[batchCount:]))
	if codec == codecNone {
		taken = min(taken, recordBytes*int64(len(records))) + int64(len(records))
		if taken <= limit {
			taken = max(taken, memory(records))
		}
	}
	switch {
	case taken > limit:
		return codecRefused
	case codec == codecNone && taken > 2*int64(len(batch)):
		return codecMeasured
	default:
		return 0
	}
}

// mark sets a batch's codec, unless it is damaged: the client finds that.
func mark(batch []byte, codec byte) {
	crc := batch[batchCRC:batchAttributes]
	if crc32.Checksum(batch[batchAttributes:], castagnoli) != binary.BigEndian.Uint32(crc) {
		return
	}
	batch[batchAttributes+1] = batch[batchAttributes+1]&^codecMask | codec
	binary.BigEndian.PutUint32(crc, crc32.Checksum(batch[batchAttributes:], castagnoli))
}
