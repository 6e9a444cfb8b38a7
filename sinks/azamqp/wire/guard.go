// Package wire checks what an AMQP peer sends before the AMQP library sees it.
//
// The library trusts its peer: a frame of any length is read into memory, empty
// ones are kept, a value is decoded as deep as it is nested, a range of
// deliveries is gone through number by number, and some answers that lack a
// field end the process. Each of these is a frame that no service sends, so a
// connection that brings one ends, which the library does well.
package wire

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// MaxFrame is the largest frame that the SDKs announce to take: their
	// library's default, which they don't change. It isn't enforced there. A
	// message to us may be as long: the longest, the properties of an event hub,
	// has some bytes for each of its partitions.
	MaxFrame = 64 << 10
	// maxSASLFrame is the largest frame before the connection is open (AMQP 1.0,
	// part 5.3.1, and MIN-MAX-FRAME-SIZE).
	maxSASLFrame = 512

	headerSize = 8 // of a frame, and of the header of a protocol
)

// What a peer may send unasked: its answers to what we wrote, and heartbeats.
// The library reads on while nobody takes what it has read, so this is also the
// limit of what waits in memory. A service answers a transfer with a frame or
// two of some hundred bytes, and sends a heartbeat each 15 s or less often.
const (
	reserve    = 256 << 10 // bytes that may come without a request
	perRequest = 8 << 10   // what each frame of ours that has an answer adds again
	perSecond  = 1 << 10   // what each second adds again
	minCost    = 256       // of a frame; an empty one takes memory too
)

// Outcomes counts the deliveries that were not stored, for all the connections
// of a client, and what the service ended.
type Outcomes struct {
	Returned atomic.Uint64 // released or modified
	Refused  atomic.Uint64 // rejected
	Ended    atomic.Uint64 // links, sessions and connections
	// Largest is how many bytes a message may have, as the last link to send events
	// on was told; 0 is any number. The SDKs know it and don't say, and encode a
	// message whole to compare.
	Largest atomic.Uint64
}

// A Violation is a frame that a peer must not send, or may not as often.
type Violation struct{ text string }

func (v *Violation) Error() string { return "the service broke the protocol: " + v.text }

func violation(format string, args ...any) error { return &Violation{fmt.Sprintf(format, args...)} }

// Guard follows one connection. Read is for one goroutine; Write may be called
// at the same time.
type Guard struct {
	seen *Outcomes

	frame   []byte // the frame that is being read, as far as it came
	header  bool   // the header of a protocol comes next
	headers int    // that were read
	sasl    bool   // the connection isn't open yet

	requests, begins, attaches atomic.Int64 // frames that were written
	begun, attached            int64        // answers that were read

	spent   budget
	replies replies
}

// NewGuard returns the guard of a new connection. What becomes of its deliveries
// is counted in seen.
func NewGuard(seen *Outcomes) *Guard {
	return &Guard{seen: seen, header: true, spent: budget{left: reserve, at: time.Now()}}
}

// Write notes a frame that is about to be written. The library writes one at a time.
func (g *Guard) Write(frame []byte) {
	if len(frame) <= headerSize+2 || frame[headerSize] != 0 || frame[headerSize+1] != smallUlong {
		return
	}
	switch frame[headerSize+2] {
	case begin:
		g.begins.Add(1)
	case attach:
		g.attaches.Add(1)
	case flow, disposition: // answers of ours, which a peer can ask for without end
		return
	}
	g.requests.Add(1)
}

// Read checks the bytes that were read last. After an error the connection must
// be closed, and the bytes must not reach the library.
func (g *Guard) Read(p []byte) error {
	for len(p) > 0 {
		frame, partial := p, len(g.frame) > 0
		if partial {
			n := min(g.missing(), len(p))
			g.frame = append(g.frame, p[:n]...)
			frame, p = g.frame, p[n:]
		}
		size := headerSize
		if len(frame) >= headerSize {
			if err := g.checkHeader(frame); err != nil {
				return err
			}
			size = g.size(frame)
		}
		switch {
		case len(frame) >= size:
			if err := g.check(frame[:size]); err != nil {
				return err
			}
			if !partial {
				p = p[size:]
			}
			g.frame = g.frame[:0]
		case !partial:
			g.frame = append(g.frame, p...)
			return nil
		}
	}
	return nil
}

// missing returns how many bytes are to be added to a partial frame, or to its header.
func (g *Guard) missing() int {
	if len(g.frame) < headerSize {
		return headerSize - len(g.frame)
	}
	return g.size(g.frame) - len(g.frame)
}

// size returns the size of a frame of which the header has been read.
func (g *Guard) size(frame []byte) int {
	if g.header {
		return headerSize
	}
	return int(binary.BigEndian.Uint32(frame))
}

// checkHeader checks the first bytes of a frame. The library reads the header of
// a protocol exactly where one is due, so what looks like one elsewhere is a frame.
func (g *Guard) checkHeader(frame []byte) error {
	if g.header {
		if string(frame[:4]) != "AMQP" {
			return violation("it does not speak AMQP: its first bytes are %q", frame[:headerSize])
		}
		return nil
	}
	most, kind := MaxFrame, byte(0)
	if g.sasl {
		most, kind = maxSASLFrame, 1
	}
	switch size := binary.BigEndian.Uint32(frame); {
	case size < headerSize:
		return violation("a frame of %d bytes", size)
	case int64(size) > int64(most):
		return violation("a frame of %d bytes, more than the %d that it may have", size, most)
	}
	// The library ignores both: what they hide from us it would decode.
	if offset := frame[4]; offset != headerSize/4 {
		return violation("a frame with a header of %d bytes", 4*int(offset))
	}
	if frame[5] != kind {
		return violation("a frame of type %d, where only %d may be", frame[5], kind)
	}
	return nil
}

// check checks a whole frame.
func (g *Guard) check(frame []byte) error {
	if !g.spent.take(len(frame), &g.requests) {
		return violation("it sends on and on without being asked")
	}
	if g.header {
		g.header, g.headers, g.sasl = false, g.headers+1, frame[4] == saslProtocol
		return nil
	}
	body := frame[headerSize:]
	if len(body) == 0 { // a heartbeat
		return nil
	}
	return g.performative(binary.BigEndian.Uint16(frame[6:]), body)
}

// budget is what the peer may still send.
type budget struct {
	left     int
	requests int64     // that were counted
	at       time.Time // up to which time was
}

// take takes a frame from the budget, and reports whether there was enough. Only
// when nothing is left is it worked out what was added meanwhile.
func (b *budget) take(size int, requests *atomic.Int64) bool {
	b.left -= max(size, minCost)
	if b.left >= 0 {
		return true
	}
	now, written := time.Now(), requests.Load()
	seconds := min(now.Sub(b.at).Seconds(), reserve/perSecond)
	asked := min(written-b.requests, reserve/perRequest)
	b.left += int(seconds*perSecond) + int(asked)*perRequest
	b.left = min(b.left, reserve)
	b.at, b.requests = now, written
	return b.left >= 0
}
