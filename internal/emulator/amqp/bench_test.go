package amqp

import (
	"bytes"
	"fmt"
	"net"
	"testing"
	"time"

	oracle "github.com/Azure/go-amqp"
	"go.uber.org/zap"
)

// counter is the cheapest backend there is.
type counter struct{ messages int }

func (c *counter) Attach(*Link) *Error                            { return nil }
func (c *counter) Attached(*Link)                                 {}
func (c *counter) Arriving(*Link)                                 {}
func (c *counter) Detached(*Link)                                 {}
func (c *counter) Request(*Link, *oracle.Message) *oracle.Message { return nil }
func (c *counter) Deliver(l *Link, d Delivery) {
	_ = EachMessage(d.Format, d.Payload, func(m []byte) {
		_, _ = MessageID(m)
		c.messages++
	})
	l.Settle(d.ID, Accepted)
}

// batch encodes a batch of n messages of about 500 bytes, as the SDKs do.
func batch(tb testing.TB, n int) []byte {
	tb.Helper()
	out := &oracle.Message{Format: BatchFormat}
	for i := range n {
		id := fmt.Sprintf("digitaltwins-events/3/%d", i)
		ct := "application/json"
		m := &oracle.Message{
			Properties: &oracle.MessageProperties{MessageID: id, ContentType: &ct},
			ApplicationProperties: map[string]any{
				"Type": "SensorChange", "CorrelationId": id, "ContentType": ct, "Subject": "Sensor",
			},
			Data: [][]byte{bytes.Repeat([]byte("x"), 500)},
		}
		b, err := m.MarshalBinary()
		if err != nil {
			tb.Fatal(err)
		}
		out.Data = append(out.Data, b)
	}
	b, err := out.MarshalBinary()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// BenchmarkWalk is the cost per message of counting, with and without its id.
func BenchmarkWalk(b *testing.B) {
	payload := batch(b, 1000)
	for name, id := range map[string]bool{"count": false, "ids": true} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; n < b.N; {
				_ = EachMessage(BatchFormat, payload, func(m []byte) {
					if id {
						_, _ = MessageID(m)
					}
					n++
				})
			}
		})
	}
}

// stream is a connection whose input is prepared: it costs the client nothing.
type stream struct {
	net.Conn
	in *bytes.Reader
}

func (s *stream) Read(b []byte) (int, error)       { return s.in.Read(b) }
func (s *stream) Write(b []byte) (int, error)      { return len(b), nil }
func (s *stream) Close() error                     { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkServer is the server's own cost per message, system calls aside: frames
// in, dispositions and flow out.
func BenchmarkServer(b *testing.B) {
	for _, size := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint("batch", size), func(b *testing.B) {
			payload := batch(b, size)
			in := prelude()
			for n, id := 0, uint32(0); n < b.N; n += size {
				in = appendTransfer(in, id, payload, 65536)
				id++
			}
			c := &counter{}
			s := &Server{backend: c, opts: Options{
				MaxFrameBytes: 65536, IdleTimeout: time.Minute, Credit: 1000, Window: 5000, Logger: zap.NewNop(),
			}}
			conn := newConn(s, &stream{in: bytes.NewReader(in)})
			b.SetBytes(int64(len(payload) / size))
			b.ReportAllocs()
			b.ResetTimer()
			if err := conn.serve(); err != nil {
				b.Fatal(err)
			}
			if c.messages < b.N {
				b.Errorf("%d of %d messages", c.messages, b.N)
			}
		})
	}
}

// prelude returns what a client sends before its first transfer.
func prelude() []byte {
	b := []byte(protoAMQP)
	b = appendFrame(b, perfOpen, func(b []byte) []byte { return append(appendString(b, "c"), 0x40) }, 2)
	b = appendFrame(b, perfBegin, func(b []byte) []byte {
		return appendUint(appendUint(appendUint(append(b, 0x40), 0), 5000), 5000)
	}, 4)
	return appendFrame(b, perfAttach, func(b []byte) []byte {
		b = appendBool(appendUint(appendString(b, "link"), 0), false)
		b = append(b, 0x40, 0x40, 0x40) // settle modes, source
		b, at := beginComposite(b, 0x29, 1)
		return endList(appendString(b, "hub"), at)
	}, 7)
}

func appendFrame(b []byte, code byte, fields func([]byte) []byte, n int) []byte {
	b, frame := beginFrame(b, frameAMQP, 0)
	b, list := beginComposite(b, code, n)
	return endFrame(endList(fields(b), list), frame)
}

// appendTransfer appends a delivery in as many frames as it takes.
func appendTransfer(b []byte, id uint32, payload []byte, frameSize int) []byte {
	for first := true; first || len(payload) > 0; first = false {
		part := payload[:min(len(payload), frameSize-66)]
		payload = payload[len(part):]
		var frame, list int
		b, frame = beginFrame(b, frameAMQP, 0)
		b, list = beginComposite(b, perfTransfer, 6)
		b = appendUint(b, 0)
		if first {
			b = appendUint(appendVar(appendUint(b, id), 0xa0, []byte{0, 0, 0, 0, 0, 0, 0, 1}), BatchFormat)
		} else {
			b = append(b, 0x40, 0x40, 0x40)
		}
		more := len(payload) > 0
		b = append(endList(appendBool(appendBool(b, false), more), list), part...)
		b = endFrame(b, frame)
	}
	return b
}
