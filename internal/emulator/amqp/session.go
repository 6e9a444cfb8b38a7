package amqp

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

// session is a session of a connection. Only the reading goroutine uses it, except
// for its window numbers.
type session struct {
	c       *Conn
	channel uint16
	links   map[uint32]*Link

	nextIncoming atomic.Uint32 // read by all that write flow frames
	nextOutgoing atomic.Uint32
	room         int // frames left in the window announced to the peer
}

// handle processes one performative.
func (c *Conn) handle(channel uint16, body []byte) error {
	d := decoder{b: body}
	code, f, _ := d.composite()
	if d.err != nil {
		return d.err
	}
	if code == perfClose {
		c.write(frameAMQP, 0, func(b []byte) []byte { return append(b, 0x00, 0x53, perfClose, 0x45) })
		return errClosed
	}
	ss := c.sessions[channel]
	if code == perfBegin {
		if ss != nil {
			return fmt.Errorf("amqp: Begin on the open channel %d", channel)
		}
		c.begin(channel, &f)
		return f.err
	}
	if ss == nil {
		return fmt.Errorf("amqp: performative 0x%x on the closed channel %d", code, channel)
	}
	switch code {
	case perfAttach:
		ss.attach(&f)
	case perfFlow:
		ss.flow(&f)
	case perfTransfer:
		return ss.transfer(&f, d.b)
	case perfDetach:
		ss.detach(&f)
	case perfDisposition: // of replies, which are sent settled: nothing to do
	case perfEnd:
		ss.end()
		delete(c.sessions, channel)
		c.write(frameAMQP, channel, func(b []byte) []byte { return append(b, 0x00, 0x53, perfEnd, 0x45) })
	default:
		return fmt.Errorf("amqp: unexpected performative 0x%x", code)
	}
	return f.err
}

func (c *Conn) begin(channel uint16, f *decoder) {
	f.uint() // remote-channel
	next, _ := f.uint()
	window := c.s.opts.Window
	ss := &session{c: c, channel: channel, links: map[uint32]*Link{}, room: window}
	ss.nextIncoming.Store(uint32(next))
	c.sessions[channel] = ss
	c.write(frameAMQP, channel, func(b []byte) []byte {
		b, at := beginComposite(b, perfBegin, 4)
		b = binary.BigEndian.AppendUint16(append(b, 0x60), channel)
		b = appendUint(b, 0) // next-outgoing-id
		b = appendUint(b, uint32(window))
		b = appendUint(b, uint32(window))
		return endList(b, at)
	})
}

// end ends the links of the session.
func (ss *session) end() {
	for h, l := range ss.links {
		delete(ss.links, h)
		l.end()
	}
}

func (ss *session) attach(f *decoder) {
	a := decodeAttach(f)
	if f.err != nil {
		return
	}
	l := &Link{
		c: ss.c, ss: ss, handle: a.handle, receiver: a.receiver,
		Source: address(a.source), Target: address(a.target),
		MaxMessageBytes: 1 << 20, Credit: ss.c.s.opts.Credit,
	}
	if old := ss.links[a.handle]; old != nil {
		f.fail(fmt.Errorf("amqp: Attach on the open handle %d", a.handle))
		return
	}
	refused := ss.c.s.backend.Attach(l)
	ss.links[a.handle] = l
	if refused != nil {
		// An Attach without a terminus means that a detach follows.
		if l.receiver {
			a.source = []byte{0x40}
		} else {
			a.target = []byte{0x40}
		}
	}
	ss.c.write(frameAMQP, ss.channel, func(b []byte) []byte {
		b, at := beginComposite(b, perfAttach, 14)
		b = appendVar(b, 0xa1, a.name)
		b = appendUint(b, a.handle)
		b = appendBool(b, !a.receiver)
		b = append(append(b, a.snd...), a.rcv...)
		b = append(append(b, a.source...), a.target...)
		b = append(b, 0x40, 0x40) // unsettled, incomplete-unsettled
		if a.receiver {
			b = appendUint(b, 0) // initial-delivery-count: the server is the sender
		} else {
			b = append(b, 0x40)
		}
		b = appendUlong(b, uint64(l.MaxMessageBytes))
		b = append(b, 0x40, 0x40) // capabilities
		if !l.TellBatchBytes {
			return endList(append(b, 0x40), at)
		}
		properties := len(b)
		b = appendSymbol(append(b, 0xd1, 0, 0, 0, 0, 0, 0, 0, 2), "com.microsoft:max-message-batch-size")
		b = appendUlong(b, uint64(l.MaxBatchBytes))
		return endList(endList(b, properties), at)
	})
	if refused != nil {
		l.Detach(refused)
		return
	}
	l.attached = true
	if !l.receiver && l.Credit > 0 {
		l.grant(l.Credit)
	}
	ss.c.s.backend.Attached(l)
}

func (ss *session) flow(f *decoder) {
	for range 4 { // the session window: replies are few, so the peer's is never exhausted
		f.uint()
	}
	handle, ok := f.uint()
	if !ok {
		return
	}
	seen, _ := f.uint()
	credit, _ := f.uint()
	f.uint() // available
	drain := f.bool()
	echo := f.bool()
	l := ss.links[uint32(handle)]
	if l == nil || f.err != nil {
		return
	}
	if l.receiver {
		// credit is relative to the delivery-count that the peer has seen.
		l.peerCredit = int(int32(uint32(seen) + uint32(credit) - l.count.Load()))
		if err := l.sendWaiting(); err != nil {
			f.fail(err)
		}
		if drain {
			l.peerCredit = 0
		}
	}
	if echo && !l.receiver {
		l.grant(int(l.left.Load()))
	}
}

func (ss *session) detach(f *decoder) {
	h, _ := f.uint()
	l := ss.links[uint32(h)]
	if l == nil || f.err != nil {
		return
	}
	delete(ss.links, uint32(h))
	l.Detach(nil) // the reply, unless the server detached first
	l.end()
}

// transfer passes a transfer frame to its link.
func (ss *session) transfer(f *decoder, payload []byte) error {
	ss.nextIncoming.Add(1)
	if ss.room--; ss.room < ss.c.s.opts.Window/2 {
		ss.room = ss.c.s.opts.Window
		ss.c.write(frameAMQP, ss.channel, func(b []byte) []byte {
			b, at := beginComposite(b, perfFlow, 4)
			return endList(ss.appendWindow(b), at)
		})
	}
	t := decodeTransfer(f)
	if f.err != nil {
		return f.err
	}
	l := ss.links[t.handle]
	if l == nil {
		return fmt.Errorf("amqp: transfer on the unattached handle %d", t.handle)
	}
	if l.receiver {
		return fmt.Errorf("amqp: transfer on handle %d, which is a receiver's", t.handle)
	}
	return l.receive(t, payload)
}

func (ss *session) appendWindow(b []byte) []byte {
	window := uint32(ss.c.s.opts.Window)
	b = appendUint(b, ss.nextIncoming.Load())
	b = appendUint(b, window)
	b = appendUint(b, ss.nextOutgoing.Load())
	return appendUint(b, window)
}
