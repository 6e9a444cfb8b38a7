package azamqp

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"twinegress/sinks/azamqp/wire"
)

// pipe returns a connection of c and its peer's end.
func pipe(t *testing.T, c *Connections) (*watchedConn, net.Conn) {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { _ = server.Close() })
	watched, err := c.watch(client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = watched.Close() })
	return watched.(*watchedConn), server
}

func TestWatch(t *testing.T) {
	c := new(Connections)
	outcome := func(is *wire.Outcomes, err error) func() error {
		return func() error {
			if is != nil {
				is.Returned.Add(1)
			}
			return err
		}
	}
	if err := c.Watch(outcome(&c.seen, nil)); !errors.Is(err, ErrReturned) {
		t.Errorf("a returned delivery returns %v", err)
	}
	failed := errors.New("failed")
	if err := c.Watch(outcome(nil, failed)); !errors.Is(err, failed) {
		t.Errorf("a failed send returns %v", err)
	}
	if err := c.Watch(outcome(nil, nil)); err != nil {
		t.Errorf("a send that went well returns %v", err)
	}
}

// What a peer must not send ends its connection, for both sides, before a byte
// of it is returned.
func TestViolationEndsTheConnection(t *testing.T) {
	c := new(Connections)
	watched, server := pipe(t, c)
	cut := make(chan error, 1)
	go func() {
		_, _ = server.Write([]byte("HTTP/1.1 400 Bad Request\r\n"))
		_, err := server.Read(make([]byte, 1))
		cut <- err
	}()
	for range 2 {
		n, err := watched.Read(make([]byte, 100))
		if _, is := errors.AsType[*wire.Violation](err); n != 0 || !is {
			t.Errorf("Read returns %d, %v", n, err)
		}
		if _, is := errors.AsType[*wire.Violation](second(watched.Write([]byte("x")))); !is {
			t.Error("Write doesn't say why the connection ended")
		}
	}
	if err := <-cut; err == nil {
		t.Error("the connection is open")
	}
	if len(c.open) != 0 {
		t.Error("the connection is kept")
	}
}

func second(_ int, err error) error { return err }

// A client that waits for its peer doesn't keep Close, nor its connections.
func TestCloseEndsWhatIsLeft(t *testing.T) {
	c := new(Connections)
	watched, _ := pipe(t, c)
	read := make(chan error, 1)
	go func() {
		_, err := watched.Read(make([]byte, 1))
		read <- err
	}()
	ctx, cancel := context.WithCancel(t.Context())
	err := c.Close(ctx, func(context.Context) error {
		cancel()
		return <-read // as a client that waits for an answer, whatever its ctx says
	})
	if err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Close returns %v", err)
	}
	client, _ := net.Pipe()
	if _, err := c.watch(client); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection after Close: %v", err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("it is open: %v", err)
	}
}
