package azamqp

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/outbound"
	"twinegress/sinks"
	"twinegress/sinks/azamqp/wire"
)

// How the SDKs' clients are made.
const (
	ApplicationID = "twinegress"
	// MaxRetries and RetryDelay are of the SDKs' own retry. The tries are the
	// sender's, but one quick inner retry is what rebuilds a lost connection:
	// without it a client never recovers.
	MaxRetries = 1
	RetryDelay = time.Millisecond
)

// ErrReturned is the error of a batch that the service neither stored nor
// refused: its outcome was released or modified (AMQP 1.0, part 3.4).
var ErrReturned = errors.New("the service gave the batch back without storing it")

// Connections opens the connections of one SDK client, through its hook for
// web sockets, and sees what comes in before the client does. It ends those of a
// service that breaks the protocol, which go-amqp would follow to the end of the
// process. And it reads the outcomes of deliveries: go-amqp's Send reports an
// outcome of released or modified as success, and the SDKs have nothing that
// shows the difference. It would be a loss that nobody counts.
type Connections struct {
	Host       string // of the namespace, as the endpoint has it
	EntityPath string // of the connection string; "" is none

	entity   string // as a sentence names it
	identity bool
	address  string
	plain    bool // no TLS
	// reached is false until a connection is made, each time anew; undialled is why
	// the last one was not.
	reached   atomic.Bool
	undialled atomic.Pointer[outbound.Failure]

	dialer *outbound.Dialer
	seen   wire.Outcomes

	mu     sync.Mutex
	open   map[*watchedConn]struct{}
	closed bool
}

// NewConnections returns the connections to the namespace of an endpoint. It
// opens none.
func NewConnections(endpoint endpoints.Endpoint, key sinks.Key, dialer *outbound.Dialer) (*Connections, error) {
	parse := endpoints.ParseConnectionString
	if endpoint.Authentication == endpoints.AuthenticationIdentity {
		parse = endpoints.ParseNamespace
	}
	to, err := parse(key.ConnectionString(endpoint))
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(to.Host)
	if err != nil {
		host, port = to.Host, "5671"
		if to.UseDevelopmentEmulator {
			port = "5672"
		}
	}
	return &Connections{
		Host: to.Host, EntityPath: to.EntityPath,
		entity: entityOfType(endpoint), identity: endpoint.Authentication == endpoints.AuthenticationIdentity,
		address: net.JoinHostPort(host, port), plain: to.UseDevelopmentEmulator, dialer: dialer,
	}, nil
}

// Dial opens a connection.
func (c *Connections) Dial(ctx context.Context) (net.Conn, error) {
	dial := c.dialer.DialTLS
	if c.plain {
		dial = c.dialer.Dial
	}
	c.reached.Store(false)
	conn, err := dial(ctx, c.address)
	if err != nil {
		if f, is := errors.AsType[*outbound.Failure](err); is {
			c.undialled.Store(f)
		}
		return nil, err
	}
	c.reached.Store(true)
	return c.watch(conn)
}

// watch returns a connection that was dialled, with its guard.
func (c *Connections) watch(conn net.Conn) (net.Conn, error) {
	watched := &watchedConn{Conn: conn, of: c, guard: wire.NewGuard(&c.seen)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	if c.open == nil {
		c.open = make(map[*watchedConn]struct{})
	}
	c.open[watched] = struct{}{}
	return watched, nil
}

// Close closes the client with its own function and, when that has returned or
// ctx ends, whatever connection is left. The SDKs wait for the answer of a peer
// that may never come, some of it without regard to ctx, and leave to the
// connection's end the goroutines that serve it.
func (c *Connections) Close(ctx context.Context, client func(context.Context) error) error {
	defer c.abort()
	stop := context.AfterFunc(ctx, c.abort)
	defer stop()
	return client(ctx)
}

// abort closes all connections, and those that are being dialled.
func (c *Connections) abort() {
	c.mu.Lock()
	c.closed = true
	open := slices.Collect(maps.Keys(c.open))
	c.mu.Unlock()
	for _, conn := range open {
		_ = conn.Close()
	}
}

// Watch runs send and adds to its error what the SDKs don't report.
//
// It returns ErrReturned where send succeeded but a delivery was returned
// meanwhile. That may have been another lane's: then this batch is sent twice,
// which is allowed, and none is lost.
//
// An error while no delivery was refused is one of the link or the connection,
// whatever its condition, and marked so for Classify: it does not mean that the
// events are bad.
func (c *Connections) Watch(send func() error) error {
	returned, refused := c.seen.Returned.Load(), c.seen.Refused.Load()
	err := send()
	switch {
	case err == nil && c.seen.Returned.Load() != returned:
		return ErrReturned
	case err != nil && c.seen.Refused.Load() == refused:
		return linkError{err}
	}
	return err
}

// Ended returns how many links, sessions and connections the service has ended.
func (c *Connections) Ended() uint64 { return c.seen.Ended.Load() }

// tooLarge reports whether a body alone is more than a message may have.
func (c *Connections) tooLarge(body []byte) bool {
	most := c.seen.Largest.Load()
	return most > 0 && uint64(len(body)) > most
}

// linkError is an error that was not the answer to a delivery.
type linkError struct{ error }

func (e linkError) Unwrap() error { return e.error }

// watchedConn is a connection with a guard. The bytes are read here before the
// library can act on them, so the counts are right when Send returns.
type watchedConn struct {
	net.Conn
	of    *Connections
	guard *wire.Guard
	ended atomic.Pointer[error] // for what its peer did
}

// Read implements net.Conn.
func (c *watchedConn) Read(p []byte) (int, error) {
	if ended := c.ended.Load(); ended != nil {
		return 0, *ended
	}
	n, err := c.Conn.Read(p)
	if bad := c.guard.Read(p[:n]); bad != nil {
		c.ended.Store(&bad)
		_ = c.Close()
		return 0, bad
	}
	return n, err
}

// Write implements net.Conn.
func (c *watchedConn) Write(p []byte) (int, error) {
	c.guard.Write(p) // before the answer can come
	n, err := c.Conn.Write(p)
	// The library reports what it couldn't write rather than why.
	if ended := c.ended.Load(); err != nil && ended != nil {
		err = *ended
	}
	return n, err
}

// Close implements net.Conn.
func (c *watchedConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
