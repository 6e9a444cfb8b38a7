package eventgrid

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// countingConn counts what would be system calls.
type countingConn struct {
	net.Conn
	writes *atomic.Int32
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestBodiesGoOutInFewWrites(t *testing.T) {
	var arrived []byte
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived, _ = io.ReadAll(r.Body)
	}))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	var writes atomic.Int32
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			tcp, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return gathering(ctx, countingConn{tcp, &writes}, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}, addr)
		},
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	post := func(body []byte) {
		t.Helper()
		response, err := client.Post(server.URL, "", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if !bytes.Equal(arrived, body) || response.Proto != "HTTP/1.1" {
			t.Errorf("%d bytes arrived of %d, or others, over %s", len(arrived), len(body), response.Proto)
		}
	}
	// The first TLS records of a connection are small: not counted.
	for _, size := range []int{maxBytes, 0, 1, gatherBytes, maxBytes - 1, 4 << 20} {
		before := writes.Load()
		body := bytes.Repeat([]byte("event "), size/6+1)[:size]
		post(body)
		if n, most := int(writes.Load()-before), 3+size/gatherBytes; before > 0 && n > most {
			t.Errorf("%d writes for %d bytes, want %d at most", n, size, most)
		}
	}
}

// Close must not wait for a service that reads no more of a body.
func TestCloseDoesntWaitForBody(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	certificate := server.TLS.Certificates[0]
	blocked := map[string]int{"while it gathers": maxBytes, "in the flush": 1}
	for when, size := range blocked {
		t.Run(when, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				raw := &gatheringConn{Conn: near}
				c := &conn{tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}), raw}
				go func() {
					_ = tls.Server(far, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}).Handshake()
				}()
				if err := c.Handshake(); err != nil {
					t.Fatal(err)
				}
				ended := make(chan error)
				go func() {
					_, err := c.ReadFrom(bytes.NewReader(make([]byte, size)))
					ended <- err
				}()
				synctest.Wait()
				begun := time.Now()
				_ = c.Close()
				if err := <-ended; err == nil {
					t.Error("the body was written, to nobody")
				}
				if took := time.Since(begun); took > 0 {
					t.Errorf("closing took %v", took)
				}
			})
		})
	}
}
