package azamqp

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/outbound"
	"twinegress/sinks"
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
// web sockets, and reads the outcomes of deliveries off them: go-amqp's Send
// reports an outcome of released or modified as success, and the SDKs have
// nothing that shows the difference. It would be a loss that nobody counts.
type Connections struct {
	Host       string // of the namespace, as the endpoint has it
	EntityPath string // of the connection string; "" is none

	address string
	plain   bool // no TLS
	dialer  *outbound.Dialer
	seen    outcomes
}

// outcomes counts the deliveries that were not stored, on all connections.
type outcomes struct{ returned, refused atomic.Uint64 }

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
		address: net.JoinHostPort(host, port), plain: to.UseDevelopmentEmulator, dialer: dialer,
	}, nil
}

// Dial opens a connection.
func (c *Connections) Dial(ctx context.Context) (net.Conn, error) {
	dial := c.dialer.DialTLS
	if c.plain {
		dial = c.dialer.Dial
	}
	conn, err := dial(ctx, c.address)
	if err != nil {
		return nil, err
	}
	return &watchedConn{Conn: conn, seen: &c.seen}, nil
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
	returned, refused := c.seen.returned.Load(), c.seen.refused.Load()
	err := send()
	switch {
	case err == nil && c.seen.returned.Load() != returned:
		return ErrReturned
	case err != nil && c.seen.refused.Load() == refused:
		return linkError{err}
	}
	return err
}

// linkError is an error that was not the answer to a delivery.
type linkError struct{ error }

func (e linkError) Unwrap() error { return e.error }

// watchedConn parses the frames that come in. The bytes are read here before
// the library can act on them, so the count is right when Send returns.
type watchedConn struct {
	net.Conn
	seen *outcomes

	head [frameHead]byte // the first bytes of the frame that is being read
	have int             // how many bytes head has
	skip int             // how many bytes of the frame are left to read over
}

const (
	frameHead   = 64 // enough of a frame for the state of a disposition
	frameHeader = 8  // size, offset, type, channel; as long as a protocol header
)

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.parse(p[:n])
	return n, err
}

// parse counts the outcomes in the bytes that were read last.
func (c *watchedConn) parse(p []byte) {
	for len(p) > 0 {
		if c.skip > 0 {
			n := min(c.skip, len(p))
			c.skip -= n
			p = p[n:]
			continue
		}
		n := copy(c.head[c.have:c.wanted()], p)
		c.have += n
		p = p[n:]
		if c.have < c.wanted() { // which grows once the size is known
			continue
		}
		if size := c.frameSize(); size > 0 {
			switch outcomeOf(c.head[:c.have]) {
			case released, modified:
				c.seen.returned.Add(1)
			case rejected:
				c.seen.refused.Add(1)
			}
			c.skip = max(size-c.have, 0)
		}
		c.have = 0
	}
}

// wanted returns how many bytes of a frame go into head.
func (c *watchedConn) wanted() int {
	if c.have < frameHeader {
		return frameHeader
	}
	return max(min(c.frameSize(), frameHead), frameHeader)
}

// frameSize returns the size in the frame's header; 0 for a protocol header,
// which is no frame.
func (c *watchedConn) frameSize() int {
	if string(c.head[:4]) == "AMQP" {
		return 0
	}
	return int(binary.BigEndian.Uint32(c.head[:4]))
}

// The descriptors of AMQP 1.0 that matter here.
const (
	disposition = 0x15
	rejected    = 0x25
	released    = 0x26
	modified    = 0x27
)

// outcomeOf returns the descriptor of a disposition's outcome; 0 is none, or another frame.
func outcomeOf(frame []byte) uint64 {
	offset := int(frame[4]) * 4
	if frame[5] != 0 || offset > len(frame) { // not an AMQP frame
		return 0
	}
	code, body := descriptor(frame[offset:])
	if code != disposition {
		return 0
	}
	switch {
	case len(body) > 3 && body[0] == 0xc0: // list8: size, count
		body = body[3:]
	case len(body) > 9 && body[0] == 0xd0: // list32
		body = body[9:]
	default:
		return 0
	}
	for range 4 { // role, first, last, settled
		body = skipPrimitive(body)
	}
	code, _ = descriptor(body)
	return code
}

// descriptor returns the numeric descriptor of a described value, 0 for none,
// and what follows it.
func descriptor(b []byte) (code uint64, rest []byte) {
	switch {
	case len(b) >= 3 && b[0] == 0 && b[1] == 0x53:
		return uint64(b[2]), b[3:]
	case len(b) >= 10 && b[0] == 0 && b[1] == 0x80:
		return binary.BigEndian.Uint64(b[2:10]), b[10:]
	}
	return 0, nil
}

// skipPrimitive returns what follows a value of fixed width, which is in its code.
func skipPrimitive(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	width := 1
	switch b[0] >> 4 {
	case 0x4:
	case 0x5:
		width += 1
	case 0x6:
		width += 2
	case 0x7:
		width += 4
	case 0x8:
		width += 8
	default:
		return nil
	}
	return b[min(width, len(b)):]
}
