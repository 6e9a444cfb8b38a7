package eventgrid

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"twinegress/internal/outbound"
)

const (
	// gatherBytes is how much is written to the kernel at once. 64 KiB save two
	// fifths of the cost of writing, and this a half: docs/performance.md.
	gatherBytes = 256 << 10
	// recordBytes is more than a TLS record takes on the wire (RFC 8446, section 5.2).
	recordBytes = 17 << 10

	handshakeTimeout = 10 * time.Second // net/http's own
)

// gatherBuffers are the connections' buffers while a body is written.
var gatherBuffers = sync.Pool{New: func() any {
	b := make([]byte, 0, gatherBytes+recordBytes)
	return &b
}}

// dialGathering connects to a topic over TLS and writes a body's TLS records many
// at a time. crypto/tls makes a system call for each, of 16 KiB at most: that was a
// sixth of an event's cost here. Behind a proxy net/http makes the TLS connection
// itself, and each record is written alone.
func dialGathering(ctx context.Context, dialer *outbound.Dialer, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	tcp, err := dialer.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return gathering(ctx, tcp, dialer.TLS(host), address)
}

func gathering(ctx context.Context, tcp net.Conn, config *tls.Config, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw := &gatheringConn{Conn: tcp}
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = tcp.Close() // nothing was sent
		return nil, outbound.HandshakeFailed(err, address)
	}
	return &conn{c, raw}, nil
}

// conn is a TLS connection that writes a body many records at a time.
type conn struct {
	*tls.Conn
	raw *gatheringConn
}

// ReadFrom writes a body; net/http calls it.
func (c *conn) ReadFrom(body io.Reader) (int64, error) {
	c.raw.gather()
	n, err := io.Copy(c.Conn, body)
	return n, errors.Join(err, c.raw.flush())
}

// Close does not wait for a service that reads no more. TLS itself would: its
// closing alert waits for the write below it that is blocked.
func (c *conn) Close() error {
	if c.raw.busy() {
		return c.raw.Conn.Close()
	}
	return c.Conn.Close()
}

// gatheringConn is the connection below TLS. Between gather and flush it buffers
// what is written.
type gatheringConn struct {
	net.Conn

	mu  sync.Mutex // TLS may write an alert at any time
	buf *[]byte    // nil: not buffered
}

func (c *gatheringConn) gather() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = gatherBuffers.Get().(*[]byte)
}

// busy reports whether a body is being written.
func (c *gatheringConn) busy() bool {
	if !c.mu.TryLock() {
		return true
	}
	defer c.mu.Unlock()
	return c.buf != nil
}

// Write may return the error of an earlier Write's bytes, which is when they are
// written: for TLS the connection is broken then as well.
func (c *gatheringConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf == nil {
		return c.Conn.Write(p)
	}
	*c.buf = append(*c.buf, p...)
	if len(*c.buf) < gatherBytes {
		return len(p), nil
	}
	if err := c.write(); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *gatheringConn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.write()
	gatherBuffers.Put(c.buf)
	c.buf = nil
	return err
}

func (c *gatheringConn) write() error {
	if len(*c.buf) == 0 {
		return nil
	}
	_, err := c.Conn.Write(*c.buf)
	*c.buf = (*c.buf)[:0]
	return err
}
