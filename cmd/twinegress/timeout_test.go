package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"twinegress/e2e/env"
	"twinegress/endpoints"
	"twinegress/internal/certtest"
	"twinegress/internal/config"
	"twinegress/server"
	"twinegress/server/api"
)

// pipes is a listener without a network: in a bubble of synctest, what waits
// for it takes no time.
type pipes struct {
	dialled chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.dialled:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// slowClient is a client that takes its time.
type slowClient struct {
	net.Conn
	t          *testing.T
	answers    *bufio.Reader
	closedEnd  chan time.Time // when the server closed its end
	background sync.WaitGroup
}

// serverEnd calls close when the server closes it.
type serverEnd struct {
	net.Conn
	close func()
}

func (e serverEnd) Close() error {
	e.close()
	return e.Conn.Close()
}

func (p *pipes) dial(t *testing.T) *slowClient {
	ours, theirs := net.Pipe()
	c := &slowClient{Conn: ours, t: t, answers: bufio.NewReader(ours), closedEnd: make(chan time.Time, 1)}
	p.dialled <- serverEnd{theirs, sync.OnceFunc(func() { c.closedEnd <- time.Now() })}
	return c
}

func (c *slowClient) send(piece string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, piece); err != nil {
		c.t.Errorf("sending %.20q: %v", piece, err)
	}
}

// dripping is between two bytes of drip: no limit is a multiple of it, so that
// no byte comes at the very moment of one.
const dripping = 1100 * time.Millisecond

// drip sends the same byte again and again, until the server hangs up or n times.
func (c *slowClient) drip(b byte, n int) {
	for range n {
		time.Sleep(dripping)
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
	}
}

// want reads an answer with that status.
func (c *slowClient) want(status int) {
	c.t.Helper()
	response, err := http.ReadResponse(c.answers, nil)
	if err != nil {
		c.t.Fatalf("no answer: %v", err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || response.StatusCode != status {
		c.t.Fatalf("status %d, want %d: %s %v", response.StatusCode, status, body, err)
	}
}

const (
	apiGet  = "GET /management/api/v1.0/endpoints HTTP/1.1\r\nHost: twinegress\r\nAuthorization: Bearer " + env.Token + "\r\n"
	apiPost = "POST /management/api/v1.0/endpoints HTTP/1.1\r\nHost: twinegress\r\nAuthorization: Bearer " + env.Token +
		"\r\nContent-Type: application/json\r\nContent-Length: 40\r\n"
)

// The API lets go of a client that doesn't go on, wherever it stops, after a
// time that is known; and not of one that is slow within those limits.
func TestSlowClients(t *testing.T) {
	const (
		header, body, answer, idle = 5 * time.Second, 30 * time.Second, time.Minute, 30 * time.Second
		goodbye                    = time.Second // of net/http, in HTTP/2
	)
	for _, tt := range []struct {
		name   string
		tls    bool
		client func(*slowClient)
		after  time.Duration // of the first moment
	}{
		{"silent from the start", false, func(*slowClient) {}, header},
		{"silent before TLS", true, func(*slowClient) {}, header},
		{"half a header", false, func(c *slowClient) { c.send(apiGet) }, header},
		{"a header that drips", false, func(c *slowClient) { c.send(apiGet + "X-Slow: "); c.drip('a', 60) }, header},
		{"half a body", false, func(c *slowClient) { c.send(apiPost + "\r\n{"); c.want(http.StatusRequestTimeout) }, body},
		{"a body that drips", false, func(c *slowClient) {
			c.send(apiPost + "\r\n")
			c.background.Go(func() { c.drip(' ', 60) })
			c.want(http.StatusRequestTimeout)
		}, body},
		{"an answer that is not read", false, func(c *slowClient) { c.send(apiGet + "\r\n") }, answer},
		{"kept and not used", false, func(c *slowClient) { c.send(apiGet + "\r\n"); c.want(http.StatusOK) }, idle},
		{"kept and not used, HTTP/2", true, func(c *slowClient) { c.getHTTP2() }, idle + goodbye},
		{"half a header after the first request", false, func(c *slowClient) {
			c.send(apiGet + "\r\n")
			c.want(http.StatusOK)
			time.Sleep(idle - time.Second)
			c.send(apiGet)
		}, idle - time.Second + header},
		{"slow within the limits", false, func(c *slowClient) {
			c.send(apiGet)
			time.Sleep(header - time.Second)
			c.send("\r\n")
			c.want(http.StatusOK)
			time.Sleep(idle - time.Second)
			c.send(apiPost + "\r\n{")
			c.drip(' ', 27)
			c.send("            ")
			c.want(http.StatusBadRequest)
		}, header - time.Second + idle - time.Second + 27*dripping + idle},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pipes{dialled: make(chan net.Conn), closed: make(chan struct{})}
				l := server.On(p, "api.listen", server.APIConnections, zap.NewNop())
				if tt.tls {
					certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
					certtest.Write(t, certFile, keyFile)
					var err error
					if l.TLS, err = server.TLS(certFile, keyFile, zap.NewNop()); err != nil {
						t.Fatal(err)
					}
				}
				l.Serve(emptyAPI(t), zap.NewNop())
				begun := time.Now()
				c := p.dial(t)
				defer func() {
					if err := errors.Join(c.Close(), l.Close()); err != nil {
						t.Error(err)
					}
					c.background.Wait()
				}()
				tt.client(c)
				select {
				case at := <-c.closedEnd:
					if took := at.Sub(begun); took != tt.after {
						t.Errorf("let go of after %v, want %v", took, tt.after)
					}
				case <-time.After(time.Hour):
					t.Error("not let go of within an hour")
				}
			})
		})
	}
}

// getHTTP2 makes a request over TLS, with a client that would keep the
// connection for ever.
func (c *slowClient) getHTTP2() {
	c.t.Helper()
	transport := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		secure := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		return secure, secure.HandshakeContext(ctx)
	}}
	request, err := http.NewRequest(http.MethodGet, "https://twinegress/management/api/v1.0/endpoints", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+env.Token)
	response, err := transport.RoundTrip(request)
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
		c.t.Errorf("%s %s, %v", response.Proto, response.Status, err)
	}
}

// emptyAPI is the Management API of no endpoints.
func emptyAPI(t *testing.T) http.Handler {
	t.Helper()
	store, err := endpoints.NewMemoryStore(nil, endpoints.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return api.New(api.Options{
		Config: config.API{Tokens: []config.Token{{Name: "tests", SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(env.Token))), Role: config.RoleWrite}}, RateLimit: 100},
		Store:  store, Log: zap.NewNop(),
	})
}
