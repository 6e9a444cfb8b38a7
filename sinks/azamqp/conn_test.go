package azamqp

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"testing"
)

// frame wraps a performative as it comes over the wire.
func frame(body ...byte) []byte {
	f := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(append(f, 2, 0, 0, 0), body...)
}

// dispositionOf is one with a list8 and small numbers, as go-amqp's peers send it.
func dispositionOf(state ...byte) []byte {
	fields := append([]byte{0x41, 0x52, 7, 0x40, 0x41}, state...) // role, first, last, settled
	return frame(append([]byte{0, 0x53, disposition, 0xc0, byte(len(fields) + 1), 5}, fields...)...)
}

func TestReturnedDeliveriesAreSeen(t *testing.T) {
	large := []byte{
		0, 0x80, 0, 0, 0, 0, 0, 0, 0, disposition, 0xd0, 0, 0, 0, 20, 0, 0, 0, 5,
		0x56, 1, 0x70, 0, 0, 1, 0, 0x70, 0, 0, 1, 9, 0x56, 1, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, modified, 0x45,
	}
	stream := slices.Concat(
		[]byte("AMQP\x03\x01\x00\x00"),
		[]byte("AMQP\x00\x01\x00\x00"),
		frame(), // a heartbeat
		dispositionOf(0, 0x53, 0x24, 0x45),
		dispositionOf(0, 0x53, released, 0x45), // 1
		frame(append([]byte{0, 0x53, 0x14, 0xc0, 200, 3}, make([]byte, 300)...)...), // a transfer, longer than is looked at
		dispositionOf(0, 0x53, modified, 0xc0, 1, 0),                                // 2
		dispositionOf(0, 0x53, rejected, 0xc0, 1, 0),
		dispositionOf(), // no state
		frame(large...), // 3
		frame(0, 0x53, disposition, 0x45),
	)
	for step := 1; step <= len(stream); step++ {
		c := &watchedConn{seen: new(outcomes)}
		for part := range slices.Chunk(stream, step) {
			c.parse(part)
		}
		if returned, refused := c.seen.returned.Load(), c.seen.refused.Load(); returned != 3 || refused != 1 {
			t.Fatalf("read %d bytes at a time, %d returned and %d refused deliveries are seen, want 3 and 1", step, returned, refused)
		}
	}
}

func FuzzFollow(f *testing.F) {
	f.Add(dispositionOf(0, 0x53, released, 0x45), 3)
	f.Add([]byte("AMQP\x00\x01\x00\x00\x00\x00\x00\x00"), 1)
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		count := func(step int) [2]uint64 {
			c := &watchedConn{seen: new(outcomes)}
			for part := range slices.Chunk(stream, step) {
				c.parse(part)
			}
			return [...]uint64{c.seen.returned.Load(), c.seen.refused.Load()}
		}
		if whole, parts := count(len(stream)+1), count(max(step, 1)); whole != parts {
			t.Fatalf("%d in one read, %d in reads of %d", whole, parts, step)
		}
	})
}

func TestWatch(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	c := new(Connections)
	watched := &watchedConn{Conn: client, seen: &c.seen}
	go func() { _, _ = server.Write(dispositionOf(0, 0x53, released, 0x45)) }()
	read := func() error {
		_, err := watched.Read(make([]byte, 100))
		return err
	}
	if err := c.Watch(read); !errors.Is(err, ErrReturned) {
		t.Errorf("a returned delivery returns %v", err)
	}
	failed := errors.New("failed")
	if err := c.Watch(func() error { return failed }); !errors.Is(err, failed) {
		t.Errorf("a failed send returns %v", err)
	}
	if err := c.Watch(func() error { return nil }); err != nil {
		t.Errorf("a send that went well returns %v", err)
	}
}
