package amqp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	goamqp "github.com/Azure/go-amqp"
	"go.uber.org/zap"
)

// acceptPause is the wait after a failed accept.
const acceptPause = 20 * time.Millisecond

// Backend handles links, deliveries and requests. The connections' reading
// goroutines call its methods, which must not block.
type Backend interface {
	// Attach is called for each link of a peer and may set the link's exported
	// fields; an error refuses the link.
	Attach(l *Link) *Error
	// Attached is called once the reply to a link that wasn't refused is written:
	// from then on it may be detached.
	Attached(l *Link)
	// Arriving is called at the first frame of a delivery that has more frames.
	Arriving(l *Link)
	// Deliver handles a delivery on a link that isn't RPC. Unless the delivery is
	// settled, it has to be settled with Link.Settle later. Payload is valid during
	// the call only.
	Deliver(l *Link, d Delivery)
	// Request handles a request on an RPC link and returns the reply; nil is none.
	Request(l *Link, m *goamqp.Message) *goamqp.Message
	// Detached is called once for each link that was attached.
	Detached(l *Link)
}

// Delivery is an assembled delivery.
type Delivery struct {
	ID      uint32
	Format  uint32
	Settled bool
	Payload []byte
}

// Options of a Server. All are required but TLS.
type Options struct {
	Address       string
	TLS           *tls.Config
	MaxFrameBytes int
	IdleTimeout   time.Duration // announced to peers
	Credit        int           // of each link
	Window        int           // of each session, in frames
	Logger        *zap.Logger
}

// Server is a listening AMQP server.
type Server struct {
	opts    Options
	backend Backend
	wg      sync.WaitGroup

	mu     sync.Mutex
	ln     net.Listener // nil while down
	addr   string
	conns  map[*Conn]struct{}
	closed bool
	hang   bool
}

// Listen starts a server.
func Listen(ctx context.Context, opts Options, b Backend) (*Server, error) {
	s := &Server{opts: opts, backend: b, addr: opts.Address, conns: map[*Conn]struct{}{}}
	if err := s.Up(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr returns the listening address, also while the server is down.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// Up opens the listener, unless it is open.
func (s *Server) Up(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ln != nil {
		return nil
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.addr)
	if err != nil {
		return fmt.Errorf("amqp: listen: %w", err)
	}
	s.ln, s.addr = ln, ln.Addr().String()
	s.wg.Go(func() { s.accept(ln) })
	return nil
}

// Down closes the listener and every connection.
func (s *Server) Down() {
	s.mu.Lock()
	ln := s.ln
	s.ln = nil
	s.mu.Unlock()
	if ln != nil {
		_ = ln.Close()
	}
	s.Each((*Conn).Abort)
}

// SetHang makes the server accept connections and freeze them.
func (s *Server) SetHang(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hang = on
}

// Each calls fn for each connection.
func (s *Server) Each(fn func(*Conn)) {
	s.mu.Lock()
	conns := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		fn(c)
	}
}

// Close stops the server and waits for all of its goroutines.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Down()
	s.wg.Wait()
}

func (s *Server) accept(ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // such as no free descriptors, which is temporary
			s.opts.Logger.Warn("amqp: accept failed", zap.Error(err))
			time.Sleep(acceptPause)
			continue
		}
		if s.opts.TLS != nil {
			nc = tls.Server(nc, s.opts.TLS)
		}
		s.start(nc, ln)
	}
}

// start serves a connection, unless the listener that accepted it is down by now.
func (s *Server) start(nc net.Conn, ln net.Listener) {
	c := newConn(s, nc)
	s.mu.Lock()
	if s.ln != ln {
		s.mu.Unlock()
		_ = nc.Close()
		return
	}
	if s.hang {
		c.Freeze()
	}
	s.conns[c] = struct{}{}
	s.wg.Go(func() {
		err := c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		if err != nil {
			s.opts.Logger.Debug("amqp: connection ended", zap.Stringer("peer", nc.RemoteAddr()), zap.Error(err))
		}
	})
	s.mu.Unlock()
}
