package eventgrid

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// gatherBytes is how much goes to the kernel at once. Of what writing costs,
	// 64 KiB save two fifths and this a half: docs/performance.md.
	gatherBytes = 256 << 10
	// recordBytes is more than a TLS record takes on the wire (RFC 8446, section 5.2).
	recordBytes = 17 << 10

	handshakeTimeout = 10 * time.Second // net/http's own
)

// gathered are what connections gather in, while a body is written.
var gathered = sync.Pool{New: func() any {
	b := make([]byte, 0, gatherBytes+recordBytes)
	return &b
}}

// useGatheringConns lets the transport's connections write a body's TLS records
// many at a time. crypto/tls makes a system call for each, of 16 KiB at most:
// that was a sixth of what an event costs here. Only HTTP/1.1 is spoken, with a
// connection for each lane: HTTP/2 would put all lanes on one, in frames of 16 KiB.
// Behind a proxy net/http makes the TLS connection itself, and each record is
// written as it comes.
func useGatheringConns(t *http.Transport) {
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	dial, config := t.DialContext, t.TLSClientConfig
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		config := config.Clone()
		config.ServerName = host
		tcp, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
		defer cancel()
		raw := &gatheringConn{Conn: tcp}
		c := tls.Client(raw, config)
		if err := c.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("TLS handshake: %w", err), tcp.Close())
		}
		return &conn{c, raw}, nil
	}
}

// conn is a TLS connection whose bodies go out many records at a time.
type conn struct {
	*tls.Conn
	raw *gatheringConn
}

// ReadFrom is what net/http copies a body with.
func (c *conn) ReadFrom(body io.Reader) (int64, error) {
	c.raw.gather()
	n, err := io.Copy(c.Conn, body)
	return n, errors.Join(err, c.raw.flush())
}

// Close doesn't wait for a service that takes no more: TLS itself would, to say
// good-bye, for as long as a write below it that it doesn't know of.
func (c *conn) Close() error {
	if c.raw.busy() {
		return c.raw.Conn.Close()
	}
	return c.Conn.Close()
}

// gatheringConn is the connection below TLS. Between gather and flush it keeps
// what is written until there is enough of it.
type gatheringConn struct {
	net.Conn

	mu  sync.Mutex // TLS writes alerts whenever it has one
	buf *[]byte    // nil: what is written goes out at once
}

func (c *gatheringConn) gather() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buf = gathered.Get().(*[]byte)
}

// busy reports whether a body is being written.
func (c *gatheringConn) busy() bool {
	if !c.mu.TryLock() {
		return true
	}
	defer c.mu.Unlock()
	return c.buf != nil
}

// Write tells of an error of what is written later only with that: TLS takes
// its connection for broken then as well.
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
	gathered.Put(c.buf)
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
