package amqp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	headerSize    = 8
	writeTimeout  = 10 * time.Second // a peer that doesn't read must not hold the server
	lingerTimeout = time.Second
	frameAMQP     = 0
	frameSASL     = 1
)

var errClosed = errors.New("amqp: connection closed")

// Conn is a peer's connection. Its fields are in groups by their user: the reading
// goroutine and all that write (wmu).
type Conn struct {
	// Data is the backend's.
	Data any

	s    *Server
	nc   net.Conn
	br   *bufio.Reader
	done chan struct{} // closed by Abort
	once sync.Once
	over atomic.Bool // set by Abort: cheaper to read than done, once per frame
	// frozen stops reading and writing for good: the peer has a silent connection.
	frozen atomic.Bool

	// Agent is the user-agent of the peer's Open performative.
	Agent    string
	sessions map[uint16]*session
	delayed  sync.WaitGroup // goroutines of After

	wmu       sync.Mutex // guards what follows, and the detached flag of links
	out       []byte
	peerFrame int
	sent      time.Time
	werr      error
}

func newConn(s *Server, nc net.Conn) *Conn {
	return &Conn{
		s: s, nc: nc, done: make(chan struct{}), sessions: map[uint16]*session{}, peerFrame: 512,
		// Whole frames are read in place, hence room for at least one.
		br: bufio.NewReaderSize(nc, max(2*s.opts.MaxFrameBytes, 4096)),
	}
}

// Abort drops the TCP connection.
func (c *Conn) Abort() {
	c.once.Do(func() {
		c.over.Store(true)
		close(c.done)
		_ = c.nc.Close()
	})
}

// Freeze stops reading and writing for good, without closing the connection.
func (c *Conn) Freeze() { c.frozen.Store(true) }

// serve serves the connection until its end.
func (c *Conn) serve() error {
	var alive sync.WaitGroup
	defer func() {
		c.Abort()
		for _, ss := range c.sessions {
			ss.end()
		}
		alive.Wait()
		c.delayed.Wait()
	}()
	// A frozen connection isn't read, so its end is not detected: wait for Abort.
	if c.frozen.Load() {
		<-c.done
		return errClosed
	}
	idle, err := c.handshake()
	if err != nil {
		return err
	}
	if idle > 0 {
		alive.Go(func() { c.keepAlive(idle) })
	}
	for {
		kind, channel, body, err := c.readFrame()
		if err == nil && kind == frameAMQP && len(body) > 0 {
			if err = c.handle(channel, body); err != nil && !errors.Is(err, errClosed) {
				c.writeClose(&Error{"amqp:decode-error", err.Error()})
			}
		}
		if err == nil && c.over.Load() {
			err = errClosed // the rest of the buffer counts as not received
		}
		if err != nil {
			_ = c.flush()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// readFrame returns the next frame; body is valid until the next call. Before it
// blocks it flushes the output, in one write.
func (c *Conn) readFrame() (kind byte, channel uint16, body []byte, err error) {
	h, err := c.peek(headerSize)
	if err != nil {
		return 0, 0, nil, err
	}
	size := int(binary.BigEndian.Uint32(h))
	doff := int(h[4]) * 4
	kind, channel = h[5], binary.BigEndian.Uint16(h[6:])
	if size > c.s.opts.MaxFrameBytes || doff < headerSize || doff > size {
		return 0, 0, nil, fmt.Errorf("amqp: frame of %d bytes, data at %d", size, doff)
	}
	frame, err := c.peek(size)
	if err != nil {
		return 0, 0, nil, err
	}
	_, _ = c.br.Discard(size) // it is buffered; the bytes stay until the next read
	return kind, channel, frame[doff:], nil
}

func (c *Conn) peek(n int) ([]byte, error) {
	for c.br.Buffered() < n {
		if err := c.flush(); err != nil {
			return nil, err
		}
		// Twice the idle time-out announced to peers, as the standard recommends.
		_ = c.nc.SetReadDeadline(time.Now().Add(2 * c.s.opts.IdleTimeout))
		_, err := c.br.Peek(n)
		if c.frozen.Load() {
			<-c.done
			return nil, errClosed
		}
		if err != nil {
			return nil, err
		}
	}
	if c.frozen.Load() {
		<-c.done
		return nil, errClosed
	}
	return c.br.Peek(n)
}

// write appends a frame to the output; fn appends its body. flush sends it.
func (c *Conn) write(kind byte, channel uint16, fn func([]byte) []byte) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.writeLocked(kind, channel, fn)
}

func (c *Conn) writeLocked(kind byte, channel uint16, fn func([]byte) []byte) {
	b, at := beginFrame(c.out, kind, channel)
	c.out = endFrame(fn(b), at)
}

func (c *Conn) flush() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return c.flushLocked()
}

func (c *Conn) flushLocked() error {
	if len(c.out) == 0 || c.werr != nil {
		return c.werr
	}
	if c.frozen.Load() {
		c.out = c.out[:0]
		return nil
	}
	c.sent = time.Now()
	_ = c.nc.SetWriteDeadline(c.sent.Add(writeTimeout))
	_, c.werr = c.nc.Write(c.out)
	if c.out = c.out[:0]; cap(c.out) > 1<<20 {
		c.out = nil
	}
	return c.werr
}

// keepAlive sends empty frames within the peer's idle time-out.
func (c *Conn) keepAlive(idle time.Duration) {
	t := time.NewTicker(max(idle/3, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-c.done:
			return
		case now := <-t.C:
			c.wmu.Lock()
			if now.Sub(c.sent) >= idle/3 {
				c.writeLocked(frameAMQP, 0, func(b []byte) []byte { return b })
				_ = c.flushLocked() // the reader detects a broken connection
			}
			c.wmu.Unlock()
		}
	}
}

// After calls fn after d and flushes the output, unless the connection ends before.
// Only the reading goroutine may call it.
func (c *Conn) After(d time.Duration, fn func()) {
	c.delayed.Go(func() {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-c.done:
		case <-t.C:
			fn()
			_ = c.flush()
		}
	})
}

// Flush sends the output.
func (c *Conn) Flush() { _ = c.flush() }

// CutAfter sends the output and closes the connection so that the peer can still
// read it: closing with unread input would reset the connection.
func (c *Conn) CutAfter() {
	_ = c.flush()
	c.Freeze() // nothing more is written
	if hc, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = hc.CloseWrite()
		_ = c.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
		_, _ = io.Copy(io.Discard, c.nc)
	}
	c.Abort()
}

// CutDuring sends the first half of the output and drops the connection.
func (c *Conn) CutDuring() {
	c.wmu.Lock()
	c.out = c.out[:len(c.out)/2]
	c.wmu.Unlock()
	c.CutAfter()
}

// CloseWith sends a Close performative with an error, and drops the connection.
func (c *Conn) CloseWith(e *Error) {
	c.writeClose(e)
	c.CutAfter()
}

func (c *Conn) writeClose(e *Error) {
	c.write(frameAMQP, 0, func(b []byte) []byte {
		b, at := beginComposite(b, perfClose, 1)
		return endList(appendError(b, e), at)
	})
}
