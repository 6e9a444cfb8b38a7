package amqp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	oracle "github.com/Azure/go-amqp"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func options() Options {
	return Options{
		Address: "127.0.0.1:0", MaxFrameBytes: 4096, IdleTimeout: time.Minute, Credit: 10, Window: 20, Logger: zap.NewNop(),
	}
}

func listen(t *testing.T, b Backend) *Server {
	t.Helper()
	s, err := Listen(t.Context(), options(), b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// raw opens a TCP connection with a deadline.
func raw(t *testing.T, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

func frame(t *testing.T, r io.Reader) []byte {
	t.Helper()
	h := make([]byte, headerSize)
	if _, err := io.ReadFull(r, h); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(h)-headerSize)
	if _, err := io.ReadFull(r, body); err != nil {
		t.Fatal(err)
	}
	return body
}

// The server sends empty frames within the peer's idle time-out.
func TestHeartbeat(t *testing.T) {
	c := raw(t, listen(t, &counter{}))
	open := appendFrame([]byte(protoAMQP), perfOpen, func(b []byte) []byte {
		b = append(appendString(b, "c"), 0x40, 0x40, 0x40)
		return appendUint(b, 30) // ms
	}, 5)
	if _, err := c.Write(open); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, headerSize)); err != nil {
		t.Fatal(err)
	}
	if b := frame(t, c); len(b) == 0 {
		t.Fatal("no Open")
	}
	for range 3 {
		if b := frame(t, c); len(b) != 0 {
			t.Errorf("frame %x", b)
		}
	}
}

// A protocol error ends its connection and no other.
func TestBrokenPeers(t *testing.T) {
	s := listen(t, &counter{})
	for name, in := range map[string][]byte{
		"another protocol": []byte("GET / HTTP/1.1\r\n\r\n"),
		"huge frame":       append([]byte(protoAMQP), 0x7f, 0, 0, 0, 2, 0, 0, 0),
		"tiny frame":       append([]byte(protoAMQP), 0, 0, 0, 4, 2, 0, 0, 0),
		"no Open":          appendFrame([]byte(protoAMQP), perfBegin, func(b []byte) []byte { return b }, 0),
		"closed channel":   appendFrame(prelude()[:len(protoAMQP)+openLen()], perfEnd, func(b []byte) []byte { return b }, 0),
		"unattached":       appendTransferHandle(prelude(), 7),
		"garbage":          append(prelude(), 0, 0, 0, 12, 2, 0, 0, 0, 0xff, 0xff, 0xff, 0xff),
	} {
		c := raw(t, s)
		if _, err := c.Write(in); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: the connection stayed: %v", name, err)
		}
	}
}

func openLen() int {
	p := prelude()[len(protoAMQP):]
	return int(binary.BigEndian.Uint32(p))
}

func appendTransferHandle(b []byte, handle uint32) []byte {
	return appendFrame(b, perfTransfer, func(b []byte) []byte { return appendUint(appendUint(b, handle), 0) }, 2)
}

// greedy sets a limit of 1,000 bytes, which the test's transfers exceed: go-amqp
// itself refuses to send them.
type greedy struct{ counter }

func (g *greedy) Attach(l *Link) *Error { l.MaxMessageBytes = 1000; return nil }

func TestMessageSizeExceeded(t *testing.T) {
	c := raw(t, listen(t, &greedy{}))
	in := appendTransfer(prelude(), 0, bytes.Repeat([]byte("x"), 9000), 4096)
	if _, err := c.Write(in); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, headerSize)); err != nil {
		t.Fatal(err)
	}
	for {
		b := frame(t, c)
		d := decoder{b: b}
		if d.descriptor() == perfDetach {
			if !bytes.Contains(b, []byte("amqp:link:message-size-exceeded")) {
				t.Errorf("detach %q", b)
			}
			return
		}
	}
}

// Many small sends through a small credit and window, from go-amqp.
func TestReplenish(t *testing.T) {
	s := listen(t, &counter{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := oracle.Dial(ctx, "amqp://"+s.Addr(), &oracle.ConnOptions{SASLType: oracle.SASLTypePlain("u", "p")})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	session, err := c.NewSession(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	var links []*oracle.Sender
	for range 3 {
		l, err := session.NewSender(ctx, "x", nil)
		if err != nil {
			t.Fatal(err)
		}
		links = append(links, l)
	}
	for i := range 300 {
		m := oracle.NewMessage(bytes.Repeat([]byte("x"), i*60)) // up to five frames
		if err := links[i%3].Send(ctx, m, nil); err != nil {
			t.Fatalf("send %d: %v", i, err)
		}
	}
	for _, l := range links {
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	if err := session.Close(ctx); err != nil {
		t.Error(err)
	}
}

func TestDownAndUp(t *testing.T) {
	s := listen(t, &counter{})
	addr := s.Addr()
	c := raw(t, s)
	s.Down()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection stayed")
	}
	if c, err := net.Dial("tcp", addr); err == nil {
		_ = c.Close()
		t.Error("a server that is down took a connection")
	}
	if err := s.Up(t.Context()); err != nil || s.Addr() != addr {
		t.Fatalf("at %s: %v", s.Addr(), err)
	}
	raw(t, s)
}

// FuzzServe feeds a connection: the server doesn't panic, and always ends it.
func FuzzServe(f *testing.F) {
	f.Add(appendTransfer(prelude(), 0, []byte{0, 0x53, 0x75, 0xa0, 1, 'x'}, 4096))
	f.Add(appendTransferHandle(prelude(), 0))
	f.Add(append([]byte(protoSASL), prelude()...))
	f.Add(appendFrame(prelude(), perfFlow, func(b []byte) []byte {
		return append(appendUint(appendUint(append(b, 0x40, 0x40, 0x40, 0x40), 0), 0), 0x40, 0x40, 0x41, 0x41)
	}, 9))
	f.Add(appendFrame(prelude(), perfDetach, func(b []byte) []byte { return appendUint(b, 0) }, 1))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := &Server{backend: &rpc{}, opts: options()}
		c := newConn(s, &stream{in: bytes.NewReader(in)})
		if err := c.serve(); errors.Is(err, io.ErrNoProgress) {
			t.Error(err)
		}
	})
}

// rpc replies to requests on every other link.
type rpc struct {
	counter
	links int
}

func (r *rpc) Attach(l *Link) *Error {
	if r.links++; r.links%3 == 0 {
		return &Error{"amqp:not-found", "none"}
	}
	l.RPC = r.links%2 == 0
	return nil
}

func (r *rpc) Request(*Link, *oracle.Message) *oracle.Message { return &oracle.Message{Value: "yes"} }
