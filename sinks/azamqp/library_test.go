package azamqp

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/Azure/go-amqp"
	"go.uber.org/goleak"
)

func listOf(code byte, fields ...[]byte) []byte {
	all := slices.Concat(fields...)
	b := binary.BigEndian.AppendUint32([]byte{0, 0x53, code, 0xd0}, uint32(4+len(all)))
	return append(binary.BigEndian.AppendUint32(b, uint32(len(fields))), all...)
}

func frameOf(body []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(append(b, 2, 0, 0, 0), body...)
}

// serve is a service that opens a link to send on and one to read from, sends
// what it is given, and ends the connection.
func serve(conn net.Conn, last []byte) {
	defer conn.Close()
	null, text := []byte{0x40}, func(s string) []byte { return append([]byte{0xa1, byte(len(s))}, s...) }
	window := []byte{0x70, 0, 0, 10, 0}
	at := listOf(0x28, text("x"))
	answers := map[byte][][]byte{
		0x10: {listOf(0x10, text("service"))},
		0x11: {listOf(0x11, []byte{0x60, 0, 0}, []byte{0x43}, window, window)},
	}
	attached := [][][]byte{
		{
			listOf(0x12, text("send"), []byte{0x43}, []byte{0x41}, null, null, at, listOf(0x29, text("x"))),
			listOf(0x13, []byte{0x43}, window, []byte{0x43}, window, []byte{0x43}, []byte{0x43}, []byte{0x52, 9}), // credit
		},
		{listOf(0x12, text("read"), []byte{0x52, 1}, []byte{0x42}, null, null, at, listOf(0x29, text("x")), null, null, []byte{0x43})},
	}
	header := make([]byte, 8)
	if _, err := io.ReadFull(conn, header); err != nil {
		return
	}
	_, _ = conn.Write(header)
	for {
		if _, err := io.ReadFull(conn, header); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(header)-8)
		if _, err := io.ReadFull(conn, body); err != nil {
			return
		}
		answer := answers[body[2]]
		if body[2] == 0x12 {
			answer, attached = attached[0], attached[1:]
		}
		for _, a := range answer {
			if _, err := conn.Write(frameOf(a)); err != nil {
				return
			}
		}
		if body[2] == 0x14 { // both links are open, and a delivery waits for its outcome
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			_, _ = conn.Write(last)
			return
		}
	}
}

// FuzzLibrary puts any frames before the AMQP library, behind the guard: it
// decodes them or not, and ends with the connection.
func FuzzLibrary(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x08\x02\x00\x00\x00"), []byte{}, false)
	f.Add(listOf(0x15, []byte{0x41}, []byte{0x43}, []byte{0x40}, []byte{0x41}, listOf(0x24)), []byte{}, true)
	f.Add(listOf(0x13, []byte{0x43}, []byte{0x43}, []byte{0x43}, []byte{0x43}, []byte{0x43}, []byte{0x43}, []byte{0x43}, []byte{0x43}, []byte{0x42}, []byte{0x41}),
		listOf(0x16, []byte{0x43}, []byte{0x41}, listOf(0x1d, []byte{0xa3, 1, 'c'}, []byte{0xa1, 1, 't'})), true)
	f.Add(slices.Concat(listOf(0x14, []byte{0x52, 1}, []byte{0x43}, []byte{0xa0, 1, 1}, []byte{0x43}, []byte{0x41}), listOf(0x73), []byte{0, 0x53, 0x77, 0x40}), listOf(0x17), true)
	f.Add(listOf(0x12, []byte{0xa1, 1, 'x'}, []byte{0x43}, []byte{0x41}), listOf(0x18, listOf(0x1d, []byte{0xa3, 1, 'c'})), true)
	f.Fuzz(func(t *testing.T, first, second []byte, framed bool) {
		known := goleak.IgnoreCurrent()
		last := slices.Concat(first, second)
		if framed {
			last = slices.Concat(frameOf(first), frameOf(second))
		}
		client, service := net.Pipe()
		served := make(chan struct{})
		go func() {
			defer close(served)
			serve(service, last)
		}()
		c := new(Connections)
		conn, err := c.watch(client)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		peer, err := amqp.NewConn(ctx, conn, nil)
		if err != nil {
			t.Fatal(err)
		}
		session, err := peer.NewSession(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		sender, err := session.NewSender(ctx, "x", &amqp.SenderOptions{Name: "send"})
		if err != nil {
			t.Fatal(err)
		}
		receiver, err := session.NewReceiver(ctx, "x", &amqp.ReceiverOptions{Name: "read"})
		if err != nil {
			t.Fatal(err)
		}
		_ = sender.Send(ctx, amqp.NewMessage([]byte("event")), nil)
		for err == nil {
			_, err = receiver.Receive(ctx, nil)
		}
		if ctx.Err() != nil {
			t.Error("it does not end with its connection")
		}
		_ = peer.Close()
		<-served
		if err := goleak.Find(known); err != nil {
			t.Error(err)
		}
	})
}
