package amqp

import "encoding/binary"

// Performative codes.
const (
	perfOpen        = 0x10
	perfBegin       = 0x11
	perfAttach      = 0x12
	perfFlow        = 0x13
	perfTransfer    = 0x14
	perfDisposition = 0x15
	perfDetach      = 0x16
	perfEnd         = 0x17
	perfClose       = 0x18

	saslMechanisms = 0x40
	saslInit       = 0x41
	saslOutcome    = 0x44

	errorCode     = 0x1d
	stateAccepted = 0x24
	stateRejected = 0x25
	stateReleased = 0x26
	stateModified = 0x27
)

// Error is an AMQP error.
type Error struct {
	Condition   string
	Description string
}

func (e *Error) Error() string { return e.Condition + ": " + e.Description }

func appendError(b []byte, e *Error) []byte {
	if e == nil {
		return append(b, 0x40)
	}
	b, at := beginComposite(b, errorCode, 2)
	b = appendSymbol(b, e.Condition)
	b = appendString(b, e.Description)
	return endList(b, at)
}

// Outcome is the outcome of a delivery: one of the three values, or Rejected(…).
type Outcome struct {
	code byte
	err  *Error
}

// The outcomes without a reason.
var (
	Accepted = Outcome{code: stateAccepted}
	Released = Outcome{code: stateReleased}
	Modified = Outcome{code: stateModified}
)

// Rejected returns the outcome of a delivery that is rejected for a reason.
func Rejected(condition, description string) Outcome {
	return Outcome{code: stateRejected, err: &Error{condition, description}}
}

func appendDisposition(b []byte, id uint32, o Outcome) []byte {
	b, at := beginComposite(b, perfDisposition, 5)
	b = append(b, 0x41) // role: receiver
	b = appendUint(b, id)
	b = append(b, 0x40) // last: the same
	b = append(b, 0x41) // settled
	switch o.code {
	case stateRejected:
		var in int
		b, in = beginComposite(b, stateRejected, 1)
		b = endList(appendError(b, o.err), in)
	case stateModified:
		var in int
		b, in = beginComposite(b, stateModified, 2)
		b = endList(append(b, 0x41, 0x42), in)
	default:
		b = append(b, 0x00, 0x53, o.code, 0x45)
	}
	return endList(b, at)
}

// beginFrame starts a frame; endFrame sets its size.
func beginFrame(b []byte, kind byte, channel uint16) ([]byte, int) {
	return append(b, 0, 0, 0, 0, 2, kind, byte(channel>>8), byte(channel)), len(b)
}

func endFrame(b []byte, at int) []byte {
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at))
	return b
}

type attach struct {
	name           []byte
	handle         uint32
	receiver       bool // the peer's role
	snd, rcv       []byte
	source, target []byte
}

// decodeAttach decodes an Attach. Fields that the reply echoes stay encoded.
func decodeAttach(f *decoder) attach {
	a := attach{name: f.bytes()}
	h, _ := f.uint()
	a.handle = uint32(h)
	a.receiver = f.bool()
	for _, field := range []*[]byte{&a.snd, &a.rcv, &a.source, &a.target} {
		*field = []byte{0x40}
		if len(f.b) > 0 {
			*field = f.raw()
		}
	}
	return a
}

// address returns the address of an encoded source or target.
func address(terminus []byte) string {
	if len(terminus) == 0 || terminus[0] == 0x40 {
		return ""
	}
	d := decoder{b: terminus}
	_, f, n := d.composite()
	if n == 0 || d.err != nil {
		return ""
	}
	return f.string()
}

type transfer struct {
	handle, id, format     uint32
	hasID                  bool
	settled, more, aborted bool
}

// decodeTransfer is on the path of every message.
func decodeTransfer(f *decoder) (t transfer) {
	h, _ := f.uint()
	t.handle = uint32(h)
	id, ok := f.uint()
	t.id, t.hasID = uint32(id), ok
	f.bytes() // delivery-tag
	format, _ := f.uint()
	t.format = uint32(format)
	t.settled = f.bool()
	t.more = f.bool()
	if len(f.b) == 0 {
		return t
	}
	f.uint() // rcv-settle-mode
	if len(f.b) > 0 {
		f.raw() // state
	}
	f.bool() // resume
	t.aborted = f.bool()
	return t
}
