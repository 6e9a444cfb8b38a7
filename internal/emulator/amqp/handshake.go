package amqp

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"time"
)

const (
	protoAMQP = "AMQP\x00\x01\x00\x00"
	protoSASL = "AMQP\x03\x01\x00\x00"
)

// handshake runs SASL, if the peer starts it, and Open. It returns the peer's idle
// time-out.
func (c *Conn) handshake() (idle time.Duration, err error) {
	proto, err := c.proto()
	if err != nil {
		return 0, err
	}
	if proto == protoSASL {
		if err := c.sasl(); err != nil {
			return 0, err
		}
		if proto, err = c.proto(); err != nil {
			return 0, err
		}
	}
	if proto != protoAMQP {
		return 0, fmt.Errorf("amqp: protocol header %q", proto)
	}
	_, _, body, err := c.readFrame()
	if err != nil {
		return 0, err
	}
	d := decoder{b: body}
	code, f, _ := d.composite()
	f.bytes() // container-id
	f.bytes() // hostname
	frame, ok := f.uint()
	f.uint() // channel-max
	ms, _ := f.uint()
	for i := 0; i < 4 && len(f.b) > 0; i++ { // locales, capabilities
		f.raw()
	}
	if len(f.b) > 0 {
		c.Agent = f.lookup("user-agent")
	}
	if err := cmp.Or(d.err, f.err); err != nil || code != perfOpen {
		return 0, fmt.Errorf("amqp: performative 0x%x where Open belongs: %w", code, err)
	}
	if !ok || frame > uint64(c.s.opts.MaxFrameBytes) {
		frame = uint64(c.s.opts.MaxFrameBytes)
	}
	c.wmu.Lock()
	c.peerFrame = int(max(frame, 512))
	c.wmu.Unlock()
	c.write(frameAMQP, 0, func(b []byte) []byte {
		b, at := beginComposite(b, perfOpen, 5)
		b = appendString(b, "twinegress-emulator")
		b = append(b, 0x40) // hostname
		b = appendUint(b, uint32(c.s.opts.MaxFrameBytes))
		b = binary.BigEndian.AppendUint16(append(b, 0x60), 0xffff) // channel-max
		b = appendUint(b, uint32(c.s.opts.IdleTimeout/time.Millisecond))
		return endList(b, at)
	})
	return time.Duration(uint32(ms)) * time.Millisecond, nil
}

// proto reads the peer's protocol header and replies with the same.
func (c *Conn) proto() (string, error) {
	h, err := c.peek(headerSize)
	if err != nil {
		return "", err
	}
	proto := string(h)
	_, _ = c.br.Discard(headerSize)
	if proto != protoAMQP && proto != protoSASL {
		proto = protoSASL // the supported one; the caller ends the connection
	}
	c.wmu.Lock()
	c.out = append(c.out, proto...)
	c.wmu.Unlock()
	return string(proto), nil
}

// sasl accepts any mechanism: authorization happens at $cbs.
func (c *Conn) sasl() error {
	c.write(frameSASL, 0, func(b []byte) []byte {
		b, at := beginComposite(b, saslMechanisms, 1)
		// An array: with a list go-amqp fails to decode the frame and retries for 45 s.
		b = appendSymbols(b, []string{"MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"})
		return endList(b, at)
	})
	_, _, body, err := c.readFrame()
	if err != nil {
		return err
	}
	d := decoder{b: body}
	if code := d.descriptor(); code != saslInit || d.err != nil {
		return fmt.Errorf("amqp: SASL frame 0x%x where sasl-init belongs: %w", code, d.err)
	}
	c.write(frameSASL, 0, func(b []byte) []byte {
		b, at := beginComposite(b, saslOutcome, 1)
		return endList(append(b, 0x50, 0), at)
	})
	return nil
}
