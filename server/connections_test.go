package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/certtest"
)

const few = 8

// limited is a server with room for few connections. A request for /wait is answered
// when released is closed.
type limited struct {
	*Listener
	t        *testing.T
	waiting  chan struct{} // a request for /wait has come
	released chan struct{}
	logs     *observer.ObservedLogs
}

func newLimited(t *testing.T, change ...func(*Listener)) *limited {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.WarnLevel)
	s := &limited{On(l, "api.listen", few, zap.New(core)), t, make(chan struct{}, few), make(chan struct{}), logs}
	for _, c := range change {
		c(s.Listener)
	}
	s.Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			s.waiting <- struct{}{}
			<-s.released
		}
		_, _ = io.WriteString(w, "ok")
	}), zap.NewNop())
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// client is one connection, kept open.
type client struct {
	net.Conn
	t       *testing.T
	answers *bufio.Reader
}

func (s *limited) dial() *client {
	s.t.Helper()
	conn, err := (&net.Dialer{}).DialContext(s.t.Context(), "tcp", s.Address())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return &client{conn, s.t, bufio.NewReader(conn)}
}

func (c *client) send(text string) *client {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// answered reads an answer.
func (c *client) answered() *client {
	c.t.Helper()
	response, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "ok" {
		c.t.Fatalf("%q, %v", body, err)
	}
	return c
}

// closed blocks until the server has closed the connection.
func (c *client) closed() {
	c.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(4 * time.Second)) // before a time-out of the server's
	if n, err := c.answers.Read(make([]byte, 1)); n != 0 || isTimeout(err) {
		c.t.Errorf("%d bytes, %v, want the connection closed", n, err)
	}
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error) //nolint:errorlint // as it comes from Read
	return ok && timeout.Timeout()
}

const (
	get  = "GET / HTTP/1.1\r\nHost: twinegress\r\n\r\n"
	wait = "GET /wait HTTP/1.1\r\nHost: twinegress\r\n\r\n"
)

// Whoever opens connections and says nothing, or not all, has few of them, and locks
// out nobody: neither a client that comes nor one that is being answered.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	for name, open := range map[string]func(*client){
		"silent":                   func(*client) {},
		"half a header":            func(c *client) { c.send(get[:20]) },
		"kept after a request":     func(c *client) { c.send(get).answered() },
		"half a header after that": func(c *client) { c.send(get).answered().send(get[:20]) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newLimited(t)
			first := s.dial().send(wait)
			<-s.waiting
			closed := make(chan bool, 5*few)
			for range 5 * few {
				c := s.dial()
				open(c)
				go func() {
					_, err := c.answers.Read(make([]byte, 1)) // until the test ends, at the latest
					closed <- err != nil && !errors.Is(err, net.ErrClosed)
				}()
			}
			s.dial().send(get).answered()
			close(s.released)
			first.answered()
			const evicted = 5*few + 2 - few // first and last are not among them
			for range evicted {
				if !<-closed {
					t.Fatal("an idle connection is not closed")
				}
			}
			if n := s.Evicted(); n != evicted {
				t.Errorf("%d are counted as evicted", n)
			}
			if n := s.logs.FilterMessageSnippet("too many connections").Len(); n != 1 {
				t.Errorf("%d lines, want 1 a minute", n)
			}
		})
	}
}

// At the bound nobody has to go; who is being answered goes only for want of others.
func TestBusyConnectionsMakeRoomLast(t *testing.T) {
	s := newLimited(t)
	busy := make([]*client, few)
	for i := range busy {
		busy[i] = s.dial().send(wait)
		<-s.waiting
	}
	if n := s.Evicted(); n != 0 {
		t.Fatalf("%d of %d are evicted", n, few)
	}
	silent := s.dial()
	busy[0].closed() // the one that has waited longest
	s.dial().send(get).answered()
	silent.closed()
	close(s.released)
	for _, c := range busy[1:] {
		c.answered()
	}
}

// Below the bound, connections come and go without an end.
func TestClosedConnectionsDoNotCount(t *testing.T) {
	s := newLimited(t)
	for range 10 * few {
		c := s.dial().send("GET / HTTP/1.1\r\nHost: twinegress\r\nConnection: close\r\n\r\n").answered()
		c.closed()
	}
	if n := s.Evicted(); n != 0 {
		t.Errorf("%d are evicted", n)
	}
}

// The same holds over TLS, with HTTP/2.
func TestIdleConnectionsMakeRoomOverTLS(t *testing.T) {
	certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	pool := certtest.Write(t, certFile, keyFile)
	s := newLimited(t, func(l *Listener) {
		var err error
		if l.TLS, err = TLS(certFile, keyFile, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
	})
	fetch := func(path string) (*http.Transport, error) {
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}}
		t.Cleanup(transport.CloseIdleConnections)
		request, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, "https://"+s.Address()+path, http.NoBody)
		if err != nil {
			return transport, err
		}
		response, err := transport.RoundTrip(request)
		if err != nil {
			return transport, err
		}
		defer response.Body.Close()
		if _, err = io.Copy(io.Discard, response.Body); err == nil && response.ProtoMajor != 2 {
			t.Errorf("%s", response.Proto)
		}
		return transport, err
	}
	busy := make(chan error, 1)
	go func() {
		_, err := fetch("/wait")
		busy <- err
	}()
	<-s.waiting
	for range 3 * few {
		if _, err := fetch("/"); err != nil {
			t.Fatal(err)
		}
		s.dial() // has said nothing, not even in TLS
	}
	if s.Evicted() < 4*few {
		t.Errorf("%d are evicted", s.Evicted())
	}
	close(s.released)
	if err := <-busy; err != nil {
		t.Errorf("who is being answered: %v", err)
	}
}

// One listener's clients take nothing of another's.
func TestListenersAreApart(t *testing.T) {
	api, ops := newLimited(t), newLimited(t)
	for range 5 * few {
		api.dial()
		ops.dial()
		api.dial().send(get).answered()
		ops.dial().send(get).answered()
	}
}
