package amqp

import (
	"cmp"
	"errors"
	"strings"
	"sync/atomic"

	goamqp "github.com/Azure/go-amqp"
)

// Link is a link that a peer attached: its terms, which the backend sets, its
// credit, and the delivery that is arriving. The fields of each stand together.
type Link struct {
	// Source and Target are the addresses; Address returns the server's.
	Source, Target string

	// Backend.Attach sets these. RPC is true for a link of a request-response pair.
	RPC             bool
	MaxMessageBytes int
	MaxBatchBytes   int // of a batch, to Service Bus; 0 is as MaxMessageBytes
	TellBatchBytes  bool
	Credit          int // 0 grants none, see GrantCredit
	// Data is the backend's.
	Data any

	c        *Conn
	ss       *session
	handle   uint32
	receiver bool // the peer receives
	attached bool

	detached atomic.Bool   // set under the connection's write lock; the link writes no frame after
	count    atomic.Uint32 // deliveries received
	left     atomic.Int32  // credit that the peer has left

	// as a receiver
	peerCredit int
	waiting    []*goamqp.Message

	// the delivery that is arriving
	open    bool
	current Delivery
	buf     []byte
}

// Conn returns the link's connection.
func (l *Link) Conn() *Conn { return l.c }

// Receiver reports whether the peer receives on this link.
func (l *Link) Receiver() bool { return l.receiver }

// Address returns the address of the server's end of the link.
func (l *Link) Address() string {
	if l.receiver {
		return l.Source
	}
	return l.Target
}

var errNoDeliveryID = errors.New("amqp: delivery without delivery-id")

// receive adds a transfer frame to its delivery.
func (l *Link) receive(t transfer, payload []byte) error {
	if l.detached.Load() {
		return nil // it was sent before the peer received the detach
	}
	if !l.open {
		if !t.hasID {
			return errNoDeliveryID
		}
		l.open = true
		l.current = Delivery{ID: t.id, Format: t.format}
		l.buf = l.buf[:0]
		if t.more {
			l.c.s.backend.Arriving(l)
		}
	}
	l.current.Settled = l.current.Settled || t.settled
	// One byte over the limit is enough to detect it; the rest is not kept.
	if t.more || len(l.buf) > 0 {
		if len(l.buf) <= l.MaxMessageBytes {
			l.buf = append(l.buf, payload...)
		}
		payload = l.buf
	}
	if t.aborted {
		l.open = false
		return nil
	}
	if t.more {
		return nil
	}
	l.open = false
	l.count.Add(1)
	if l.left.Add(-1) < int32(l.Credit/2) {
		l.grant(l.Credit)
	}
	limit := l.MaxMessageBytes
	if l.MaxBatchBytes > 0 && l.current.Format == BatchFormat {
		limit = l.MaxBatchBytes
	}
	if len(payload) > limit {
		l.Detach(&Error{"amqp:link:message-size-exceeded", "The received message exceeds the limit of the link."})
		return nil
	}
	l.current.Payload = payload
	if !l.RPC {
		l.c.s.backend.Deliver(l, l.current)
	} else if err := l.request(); err != nil {
		return err
	}
	l.current.Payload = nil
	if cap(l.buf) > 4<<20 { // don't keep the buffer of one huge message
		l.buf = nil
	}
	return nil
}

// request passes a request to the backend and sends the reply on the receiving
// link of the same session and address.
func (l *Link) request() error {
	m, err := DecodeMessage(l.current.Payload)
	if err != nil {
		return err
	}
	if !l.current.Settled {
		l.Settle(l.current.ID, Accepted)
	}
	reply := l.c.s.backend.Request(l, m)
	if reply == nil {
		return nil
	}
	if p := m.Properties; p != nil {
		reply.Properties = &goamqp.MessageProperties{CorrelationID: cmp.Or(p.CorrelationID, p.MessageID)}
	}
	for _, out := range l.ss.links {
		if out.receiver && strings.EqualFold(out.Source, l.Target) {
			// The request can arrive before the flow frame with the credit for its reply.
			out.waiting = append(out.waiting, reply)
			return out.sendWaiting()
		}
	}
	return nil // no link for the reply
}

// sendWaiting sends as many replies as there is credit for.
func (l *Link) sendWaiting() error {
	for len(l.waiting) > 0 && l.peerCredit > 0 {
		m := l.waiting[0]
		l.waiting = l.waiting[1:]
		if err := l.send(m); err != nil {
			return err
		}
	}
	return nil
}

// send sends a settled message to a receiving peer.
func (l *Link) send(m *goamqp.Message) error {
	payload, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	l.peerCredit--
	c, id := l.c, l.count.Add(1)-1
	c.wmu.Lock()
	defer c.wmu.Unlock()
	room := c.peerFrame - 64 // for the transfer performative
	for first := true; first || len(payload) > 0; first = false {
		part := payload[:min(room, len(payload))]
		payload = payload[len(part):]
		deliveryID := l.ss.nextDelivery(first)
		c.writeLocked(frameAMQP, l.ss.channel, func(b []byte) []byte {
			b, at := beginComposite(b, perfTransfer, 6)
			b = appendUint(b, l.handle)
			if first {
				b = appendUint(b, deliveryID)
				b = appendVar(b, 0xa0, []byte{byte(id >> 24), byte(id >> 16), byte(id >> 8), byte(id)})
				b = appendUint(b, 0)
			} else {
				b = append(b, 0x40, 0x40, 0x40)
			}
			b = appendBool(b, true) // settled
			b = appendBool(b, len(payload) > 0)
			return append(endList(b, at), part...)
		})
	}
	return nil
}

// nextDelivery counts an outgoing frame and returns the delivery id if it is a
// delivery's first.
func (ss *session) nextDelivery(first bool) uint32 {
	n := ss.nextOutgoing.Add(1) - 1
	if first {
		return n // the frame's number is unique among deliveries too
	}
	return 0
}

// Settle settles a delivery. The connection's next flush sends it.
func (l *Link) Settle(id uint32, o Outcome) {
	l.c.wmu.Lock()
	defer l.c.wmu.Unlock()
	if !l.detached.Load() {
		l.c.writeLocked(frameAMQP, l.ss.channel, func(b []byte) []byte { return appendDisposition(b, id, o) })
	}
}

// GrantCredit grants the server's credit to a link that has none left.
func (l *Link) GrantCredit() {
	if l.left.Load() <= 0 {
		l.grant(l.c.s.opts.Credit)
		_ = l.c.flush()
	}
}

// grant sets the number of messages that the peer may send from here on.
func (l *Link) grant(credit int) {
	c := l.c
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if l.detached.Load() {
		return
	}
	l.left.Store(int32(credit))
	c.writeLocked(frameAMQP, l.ss.channel, func(b []byte) []byte {
		b, at := beginComposite(b, perfFlow, 7)
		b = l.ss.appendWindow(b)
		b = appendUint(b, l.handle)
		b = appendUint(b, l.count.Load())
		b = appendUint(b, uint32(credit))
		return endList(b, at)
	})
}

// Detach closes the link, with an error unless it is nil. It may be called from
// any goroutine and more than once.
func (l *Link) Detach(e *Error) {
	c := l.c
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if l.detached.Swap(true) {
		return
	}
	c.writeLocked(frameAMQP, l.ss.channel, func(b []byte) []byte {
		b, at := beginComposite(b, perfDetach, 3)
		b = appendBool(appendUint(b, l.handle), true)
		return endList(appendError(b, e), at)
	})
}

// end reports the end of the link to the backend.
func (l *Link) end() {
	l.c.wmu.Lock()
	l.detached.Store(true)
	l.c.wmu.Unlock()
	if l.attached {
		l.attached = false
		l.c.s.backend.Detached(l)
	}
}
