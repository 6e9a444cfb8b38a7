package wire

import (
	"bytes"
	"encoding/binary"
	"math"
)

// The descriptors of AMQP 1.0 that matter here, and the protocol of its layer
// for authentication.
const (
	open        = 0x10
	begin       = 0x11
	attach      = 0x12
	flow        = 0x13
	transfer    = 0x14
	disposition = 0x15
	detach      = 0x16
	end         = 0x17
	closing     = 0x18
	errorValue  = 0x1d
	rejected    = 0x25
	released    = 0x26
	modified    = 0x27
	saslOutcome = 0x44
	properties  = 0x73

	saslProtocol = 3
)

const (
	// minMaxFrame is the least that a peer may take (AMQP 1.0, part 2.4.1).
	minMaxFrame = 512
	// minIdleTimeout is the least after which a peer may give us up, in
	// milliseconds: we write a heartbeat twice in that time. The services' are
	// minutes.
	minIdleTimeout = 1000
	// maxSettled is the most deliveries that one disposition may be about. A
	// lane has one in flight, and there are a dozen.
	maxSettled = 1024
)

// performative checks the body of a frame.
func (g *Guard) performative(channel uint16, body []byte) error {
	if len(body) < 3 || body[0] != 0 || body[1] != smallUlong { // the library knows no other form
		return violation("a frame without a performative")
	}
	f, rest, err := fields(body[3:])
	if err != nil {
		return err
	}
	switch body[2] {
	case saslOutcome:
		// The library reads the next header whatever the outcome is.
		g.header = g.sasl && g.headers == 1
	case open:
		return checkOpen(f)
	case begin:
		if g.begun++; g.begun > g.begins.Load() {
			return violation("a session that nobody asked for")
		}
	case attach:
		if g.attached++; g.attached > g.attaches.Load() {
			return violation("a link that nobody asked for")
		}
		// A receiver: we send. The entity's own links have no $ in their target.
		if isTrue(f[2]) && !isNull(f[6]) && !bytes.ContainsRune(f[6], '$') {
			g.seen.Largest.Store(long(f[10]))
		}
		return g.replies.attach(channel, f)
	case flow:
		// The library takes the credit that a link is told for granted.
		if !isNull(f[4]) && isNull(f[6]) {
			return violation("a flow of a link without its credit")
		}
	case transfer:
		return g.replies.transfer(channel, f, rest)
	case disposition:
		return g.disposition(f)
	case detach:
		g.seen.Ended.Add(1)
		return g.replies.detach(channel, f)
	case end:
		g.seen.Ended.Add(1)
		g.replies.end(channel)
	case closing:
		g.seen.Ended.Add(1)
	}
	return nil
}

func checkOpen(f performative) error {
	size, set, err := number(f[2])
	if err != nil {
		return err
	}
	if set && size < minMaxFrame {
		return violation("it takes frames of %d bytes only", size)
	}
	idle, set, err := number(f[4])
	if err != nil {
		return err
	}
	if set && idle > 0 && idle < minIdleTimeout {
		return violation("it gives up after %d ms without a frame", idle)
	}
	return nil
}

// disposition counts the outcome of a delivery and checks the range: the library
// goes through its numbers one by one, and from the last possible one on to 0.
func (g *Guard) disposition(f performative) error {
	first, set, err := number(f[1])
	if err != nil {
		return err
	}
	if !set {
		return violation("a disposition without a delivery")
	}
	last, set, err := number(f[2])
	if err != nil {
		return err
	}
	if !set {
		last = first
	}
	if last < first || last-first >= maxSettled || last == math.MaxUint32 {
		return violation("a disposition of the deliveries %d to %d, more than can be in flight", first, last)
	}
	switch code, _ := descriptor(f[4]); code {
	case released, modified:
		g.seen.Returned.Add(1)
	case rejected:
		g.seen.Refused.Add(1)
	}
	return nil
}

// replies are the links on which the peer sends: its answers to requests for a
// token, or for what a hub is.
type replies struct {
	parts map[link][]byte // by link, what has come of a message
	bytes int             // in all parts
}

type link struct {
	channel uint16
	handle  uint32
}

func linkOf(channel uint16, handle []byte) (link, error) {
	n, set, err := number(handle)
	if err == nil && !set {
		err = violation("a frame of a link without its handle")
	}
	return link{channel, n}, err
}

func (r *replies) attach(channel uint16, f performative) error {
	l, err := linkOf(channel, f[1])
	if err != nil || !isFalse(f[2]) { // its role: false is that of a sender
		return err
	}
	if r.parts == nil {
		r.parts = make(map[link][]byte)
	}
	r.drop(l)
	// Without a source the link is refused: why is in the detach that follows, and
	// nobody reads from it.
	if !isNull(f[5]) {
		r.parts[l] = nil
	}
	return nil
}

// transfer adds to a link's message, and checks it once it is whole. The SDKs
// take it for granted that an answer has properties.
func (r *replies) transfer(channel uint16, f performative, payload []byte) error {
	l, err := linkOf(channel, f[0])
	if err != nil {
		return err
	}
	part, known := r.parts[l]
	if !known {
		return violation("a message on a link that is for ours")
	}
	if r.bytes+len(payload) > MaxFrame {
		return violation("a message of over %d bytes", MaxFrame)
	}
	if isTrue(f[5]) { // more of it follows
		r.parts[l] = append(part, payload...)
		r.bytes += len(payload)
		return nil
	}
	if len(part) > 0 {
		payload = append(part, payload...)
		r.drop(l)
		r.parts[l] = nil
	}
	return checkMessage(payload)
}

// The conditions with which a link may end and be said, by the SDKs, to need no
// recovery: what reads answers from it then reads again at once, and again.
var endless = map[string]bool{
	"com.microsoft:server-busy":         true,
	"com.microsoft:timeout":             true,
	"com.microsoft:operation-cancelled": true,
}

func (r *replies) detach(channel uint16, f performative) error {
	l, err := linkOf(channel, f[0])
	if err != nil {
		return err
	}
	if _, known := r.parts[l]; !known {
		return nil
	}
	r.drop(l)
	code, rest := descriptor(f[2])
	if code != errorValue {
		return nil
	}
	e, _, err := fields(rest)
	if err != nil {
		return err
	}
	if condition := text(e[0]); endless[condition] {
		// In the library's words, which are read where errors are classified: one
		// that is busy is to be waited for.
		return violation("it ended the link for its answers with *Error{Condition: %s, Description: %s, Info: map[]}", condition, text(e[1]))
	}
	return nil
}

func (r *replies) end(channel uint16) {
	for l := range r.parts {
		if l.channel == channel {
			r.drop(l)
		}
	}
}

func (r *replies) drop(l link) {
	r.bytes -= len(r.parts[l])
	delete(r.parts, l)
}

// checkMessage checks the sections of a message.
func checkMessage(b []byte) error {
	found := false
	for len(b) > 0 {
		code, _ := descriptor(b)
		found = found || code == properties
		var err error
		if b, err = value(b, 0); err != nil {
			return err
		}
	}
	if !found {
		return violation("an answer without properties")
	}
	return nil
}

// descriptor returns the numeric descriptor of a described value, 0 for none,
// and what follows it.
func descriptor(b []byte) (code uint64, rest []byte) {
	switch {
	case len(b) >= 3 && b[0] == 0 && b[1] == smallUlong:
		return uint64(b[2]), b[3:]
	case len(b) >= 10 && b[0] == 0 && b[1] == ulong:
		return binary.BigEndian.Uint64(b[2:10]), b[10:]
	}
	return 0, nil
}
