package sinktest

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"twinegress/internal/event"
)

// The frames of a service that a case can replace. The headers of protocols
// count as one.
const (
	atHeader      = 0x00
	atMechanisms  = 0x40
	atOutcome     = 0x44
	atOpen        = 0x10
	atBegin       = 0x11
	atAttach      = 0x12
	atFlow        = 0x13
	atTransfer    = 0x14
	atDisposition = 0x15
	detachCode    = 0x16
	closeCode     = 0x18
	atNothing     = 0xfe
)

// hostileCases are the rows in which something is sent.
func hostileCases() []hostileCase {
	broke := func(what string) string { return `unreachable: .*the service broke the protocol: .*` + what }
	const giant = "\x7f\xff\xff\xff\x02"
	// instead sends frames in place of the one that is due, which of makes from its
	// first field: the handle of a link.
	instead := func(of func(handle []byte) [][]byte) func(*peer, []byte) bool {
		return func(p *peer, due []byte) bool {
			handle, _ := firstFields(due)
			for _, frame := range of(handle) {
				if _, err := p.Write(onChannelOf(due, frame)); err != nil {
					return false
				}
			}
			return false
		}
	}
	frame := func(f []byte) func(*peer, []byte) bool {
		return instead(func([]byte) [][]byte { return [][]byte{f} })
	}
	// endless sends the frame that is due, and then another without end.
	endless := func(f []byte) func(*peer, []byte) bool {
		return func(p *peer, due []byte) bool {
			_, _ = p.Write(due)
			p.flood(onChannelOf(due, f))
			return false
		}
	}
	// large sends the header of a frame, and then bytes without end.
	large := func(header string) func(*peer, []byte) bool {
		return func(p *peer, _ []byte) bool {
			_, _ = io.WriteString(p, header)
			p.flood(make([]byte, 64<<10))
			return false
		}
	}
	// A list in a list, and so on, 3 bytes for each.
	nested := func(size int) []byte { return append(bytes.Repeat([]byte{0xc0, 2, 1}, size/3), 0x40) }
	opened := func(properties []byte) []byte {
		return performative(atOpen, str("x"), null, null, null, null, null, null, null, null, properties)
	}
	outcome := func(state []byte) func(*peer, []byte) bool {
		return func(p *peer, due []byte) bool {
			_, delivery := firstFields(due)
			_, err := p.Write(onChannelOf(due, disposition(delivery, null, state)))
			return err == nil // the SDK tries again at once
		}
	}
	rejection := func(condition, text string) func(*peer, []byte) bool {
		return outcome(described(0x25, list(fault(condition, text))))
	}
	flow := func(more ...[]byte) []byte {
		return performative(atFlow, append([][]byte{uintOf(0), uintOf(5000), uintOf(0), uintOf(5000)}, more...)...)
	}
	answer := func(payload []byte) func(*peer, []byte) bool {
		return instead(func(handle []byte) (frames [][]byte) {
			for part := range slices.Chunk(payload, 60_000) {
				more := yes
				if len(part) < 60_000 {
					more = no
				}
				frames = append(frames, performativeWith(part, atTransfer, handle, uintOf(0), []byte{0xa0, 1, 1}, uintOf(0), yes, more))
			}
			return frames
		})
	}
	long := strings.Repeat("long ", 12_000)
	cases := []hostileCase{
		{name: "no AMQP", at: atHeader, send: endless([]byte("HTTP/1.1 400 Bad Request\r\n")), cause: `unreachable`},
		{name: "a frame of 2 GiB in SASL", at: atMechanisms, send: large(giant + "\x01\x00\x00"), cause: broke(`a frame of 2147483647 bytes, more than the 512`)},
		{name: "a frame of 2 GiB", at: atOpen, send: large(giant + "\x00\x00\x00"), cause: broke(`a frame of 2147483647 bytes, more than the 65536`)},
		{name: "a frame of 2 GiB for a batch", at: atDisposition, batch: true, send: large(giant + "\x00\x00\x00"), cause: broke(`a frame of 2147483647 bytes`)},
		{name: "a protocol's header, too late", at: atOpen, send: large("AMQP\x00\x01\x00\x00"), cause: broke(`a frame of 1095586128 bytes`)},
		{name: "a frame with a long header", at: atOpen, send: large("\x00\x00\xff\xff\xff\x00\x00\x00"), cause: broke(`a header of 1020 bytes`)},
		{name: "endless empty frames", at: atOpen, send: endless(frameOf(0, nil)), cause: broke(`on and on`)},
		{name: "endless empty frames for a batch", at: atDisposition, batch: true, send: func(p *peer, _ []byte) bool {
			p.flood(frameOf(0, nil))
			return false
		}, cause: broke(`on and on`)},
		{name: "endless sessions", at: atBegin, send: endless(performative(atBegin, []byte{0x60, 0, 0}, uintOf(0), uintOf(1), uintOf(1))), cause: broke(`nobody asked for`)},
		{name: "endless links", at: atAttach, send: endless(performative(atAttach, str("x"), uintOf(0), yes)), cause: broke(`a link that nobody asked for`)},
		{name: "endless ends of links", at: atFlow, send: endless(performative(detachCode, uintOf(9), yes)), cause: broke(`on and on`)},
		{name: "endless flows to answer", at: atFlow, send: endless(flow(null, null, null, null, null, yes)), cause: broke(`on and on`)},
		{name: "endless outcomes", at: atFlow, send: endless(disposition(uintOf(900), null, described(0x24, list()))), cause: broke(`on and on`)},
		{name: "nested, 9 MiB", at: atOpen, send: frame(opened(mapOf(symbol("x"), nested(9<<20)))), cause: broke(`more than the 65536`)},
		{name: "nested, a frame", at: atOpen, send: frame(opened(mapOf(symbol("x"), nested(60_000)))), cause: broke(`malformed`)},
		{name: "nested, in an answer", at: atTransfer, send: answer(append(described(0x77, nil), nested(9<<20)...)), cause: broke(`a message of over 65536 bytes`)},
		{name: "an answer without properties", at: atTransfer, send: answer(described(0x77, null)), cause: broke(`an answer without properties`)},
		{name: "an answer with a map for a key", at: atTransfer, send: answer(described(0x77, mapOf(described(0xff, list(null)), null))), cause: broke(`a map whose key`)},
		{name: "all deliveries there can be", at: atDisposition, batch: true, send: frame(disposition(uintOf(0), uintOf(1<<32-1), described(0x24, list()))), cause: broke(`more than can be in flight`)},
		{name: "the last delivery there can be", at: atDisposition, batch: true, send: frame(disposition(uintOf(1<<32-1), null, described(0x24, list()))), cause: broke(`more than can be in flight`)},
		{name: "a flow without credit", at: atFlow, send: frame(flow(uintOf(0))), cause: broke(`without its credit`)},
		{name: "heartbeats each millisecond", at: atOpen, send: frame(performative(atOpen, str("x"), null, null, null, uintOf(1))), cause: broke(`after 1 ms`)},
		{name: "frames of a byte", at: atOpen, send: frame(performative(atOpen, str("x"), null, uintOf(1))), cause: broke(`frames of 1 bytes`)},
		{name: "the end of an answer's link", at: atTransfer, send: instead(func(handle []byte) [][]byte {
			return [][]byte{performative(detachCode, handle, yes, fault("com.microsoft:server-busy", "wait 9223372037 seconds"))}
		}), reason: event.Throttled, cause: `ended the link for its answers .*server-busy`},
		{name: "an answer's link that is refused", at: atAttach, send: func(p *peer, due []byte) bool {
			name, handle, ofAnswers := linkIn(due)
			if !ofAnswers {
				_, err := p.Write(due)
				return err == nil
			}
			for _, frame := range [][]byte{
				performative(atAttach, name, handle, no), // without a source
				performative(detachCode, handle, yes, fault("com.microsoft:server-busy", "wait 9223372037 seconds")),
			} {
				if _, err := p.Write(onChannelOf(due, frame)); err != nil {
					return false
				}
			}
			return true
		}, reason: event.Throttled, cause: `server-busy`},
		{name: "a long text, at the end of the connection", at: atBegin, send: frame(performative(closeCode, fault("amqp:internal-error", long))), cause: `internal-error`},
		{name: "a long text, for a batch", at: atDisposition, batch: true, send: rejection("amqp:internal-error", long), cause: `internal-error`},
		{name: "a wait of centuries", at: atDisposition, batch: true, send: rejection("com.microsoft:server-busy", "wait 9223372037 seconds"), reason: event.Throttled, cause: `server-busy`},
		{name: "half closed", at: atDisposition, batch: true, send: func(p *peer, _ []byte) bool {
			_ = p.Conn.(*net.TCPConn).CloseWrite()
			return false
		}, cause: lost},
	}
	for i := range cases {
		if cases[i].reason == 0 {
			cases[i].reason = event.Unreachable
		}
	}
	return cases
}

// quietCases are the rows of a service from which nothing comes, or next to
// nothing.
func quietCases() (cases []hostileCase) {
	for name, at := range map[string]byte{
		"header": atHeader, "mechanisms": atMechanisms, "SASL's outcome": atOutcome, "open": atOpen,
		"begin": atBegin, "attach": atAttach, "flow": atFlow, "answer": atTransfer, "outcome": atDisposition,
	} {
		cases = append(cases, hostileCase{name: "silent in place of " + name, at: at})
	}
	cases = append(cases, hostileCase{name: "silent in place of a batch's outcome", at: atDisposition, batch: true})
	drip := func(p *peer, frame []byte) bool {
		frame = append(frame[:len(frame):len(frame)], frameOf(0, make([]byte, 60_000))...)
		for _, b := range frame {
			if _, err := p.Write([]byte{b}); err != nil {
				return false
			}
			time.Sleep(50 * time.Millisecond)
		}
		return false
	}
	for name, at := range map[string]byte{"mechanisms": atMechanisms, "open": atOpen, "an answer": atTransfer, "an outcome": atDisposition} {
		cases = append(cases, hostileCase{name: "dripping from " + name + " on", at: at, send: drip})
	}
	for i := range cases {
		cases[i].reason, cases[i].cause = event.Unreachable, timedOut
	}
	return cases
}

// The encodings of AMQP 1.0 that a hostile service needs; the emulated one keeps
// its own, which can't be wrong.

var (
	null = []byte{0x40}
	yes  = []byte{0x41}
	no   = []byte{0x42}
)

func uintOf(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0x70}, n) }

func str(s string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0xb1}, uint32(len(s))), s...)
}

func symbol(s string) []byte {
	b := str(s)
	b[0] = 0xb3
	return b
}

func list(values ...[]byte) []byte {
	all := slices.Concat(values...)
	b := binary.BigEndian.AppendUint32([]byte{0xd0}, uint32(4+len(all)))
	return append(binary.BigEndian.AppendUint32(b, uint32(len(values))), all...)
}

func mapOf(values ...[]byte) []byte {
	b := list(values...)
	b[0] = 0xd1
	return b
}

func described(code byte, value []byte) []byte { return append([]byte{0, 0x53, code}, value...) }

func fault(condition, text string) []byte {
	return described(0x1d, list(symbol(condition), str(text)))
}

// frameOf is a frame of channel 0.
func frameOf(kind byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(append(b, 2, kind, 0, 0), body...)
}

func performative(code byte, fields ...[]byte) []byte { return performativeWith(nil, code, fields...) }

func performativeWith(payload []byte, code byte, fields ...[]byte) []byte {
	return frameOf(0, append(described(code, list(fields...)), payload...))
}

func disposition(first, last, state []byte) []byte {
	return performative(atDisposition, yes, first, last, yes, state)
}

// batchFormat is the format of a message that is a batch, in its transfer.
var batchFormat = uintOf(0x80013700)

// readFrame reads a frame of the SDK's or the emulated service's, or a protocol's
// header, and returns it with its performative.
func readFrame(r io.Reader) (frame []byte, code byte, err error) {
	frame = make([]byte, 8)
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, 0, err
	}
	if string(frame[:4]) == "AMQP" {
		return frame, atHeader, nil
	}
	frame = append(frame, make([]byte, binary.BigEndian.Uint32(frame)-8)...)
	if _, err := io.ReadFull(r, frame[8:]); err != nil {
		return nil, 0, err
	}
	if len(frame) < 11 {
		return frame, 0xff, nil
	}
	return frame, frame[10], nil
}

// onChannelOf returns a frame on the channel of another.
func onChannelOf(other, frame []byte) []byte {
	if string(other[:4]) == "AMQP" {
		return frame
	}
	frame = slices.Clone(frame)
	copy(frame[6:8], other[6:8])
	return frame
}

// firstFields returns the first two fields of a frame of the emulated service's,
// where they are numbers.
func firstFields(frame []byte) (first, second []byte) {
	const at = 8 + 3 + 9 // header, descriptor, size and count of a list
	if len(frame) <= at {
		return nil, nil
	}
	first, rest := numberIn(frame[at:])
	second, _ = numberIn(rest)
	return first, second
}

// linkIn returns the name and the handle in the emulated service's answer to an
// attach, and whether it sends on that link, which is for answers then.
func linkIn(frame []byte) (name, handle []byte, ofAnswers bool) {
	const at = 8 + 3 + 9
	if len(frame) <= at+5 {
		return nil, nil, false
	}
	rest := frame[at:]
	length := 2 + int(rest[1])
	if rest[0] == 0xb1 {
		length = 5 + int(binary.BigEndian.Uint32(rest[1:]))
	}
	length = min(length, len(rest))
	name = rest[:length]
	handle, rest = numberIn(rest[length:])
	return name, handle, len(rest) > 0 && (rest[0] == no[0] || bytes.HasPrefix(rest, []byte{0x56, 0}))
}

// numberIn returns the number at the beginning of b and what follows it.
func numberIn(b []byte) (n, rest []byte) {
	if len(b) == 0 {
		return nil, nil
	}
	width := map[byte]int{0x52: 2, 0x70: 5}[b[0]]
	width = min(max(width, 1), len(b))
	return b[:width], b[width:]
}
