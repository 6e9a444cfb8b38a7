package outbound

import (
	"bufio"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// How much of a body is read, with the limit at 100 bytes, and whether the
// connection is used again.
func TestBodies(t *testing.T) {
	t.Parallel()
	const limit = 100
	tests := map[string]struct {
		size   int
		cut    bool
		read   int
		says   string // of the error
		reused bool
	}{
		"none":                {0, true, 0, "", true},
		"below":               {99, true, 99, "", true},
		"at":                  {100, true, 100, "", true},
		"above, cut":          {101, true, 100, "", true},
		"far above, cut":      {1 << 20, true, 100, "", false},
		"far above, an error": {1 << 20, false, 100, "the reply is longer than 100 bytes", false},
		"at, or an error":     {100, false, 100, "", true},
		"above, an error":     {101, false, 100, "the reply is longer than 100 bytes", true},
		"no longer than one":  {1, false, 1, "", true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", strconv.Itoa(test.size))
				_, _ = io.WriteString(w, strings.Repeat("x", test.size))
			}))
			defer server.Close()
			roots := x509.NewCertPool()
			roots.AddCert(server.Certificate())
			transport := New(nil, func() *x509.CertPool { return roots }).Transport(server.Listener.Addr().String(), nil)
			defer transport.CloseIdleConnections()
			client := NewClient(transport, limit, test.cut)
			reused := false
			for range 2 {
				trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }})
				request, err := http.NewRequestWithContext(trace, http.MethodGet, server.URL, nil)
				if err != nil {
					t.Fatal(err)
				}
				response, err := client.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(response.Body)
				if len(text) != test.read || (err == nil) != (test.says == "") || err != nil && err.Error() != test.says {
					t.Errorf("read %d, %v, want %d, %q", len(text), err, test.read, test.says)
				}
				if n, again := response.Body.Read(make([]byte, 1)); n != 0 || again == nil {
					t.Errorf("after the end: %d, %v", n, again)
				}
				_ = response.Body.Close()
			}
			if reused != test.reused {
				t.Errorf("the connection is used again: %v", reused)
			}
		})
	}
}

// A redirection is an answer like any other.
func TestNoRedirect(t *testing.T) {
	t.Parallel()
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	defer server.Close()
	transport := new(Dialer).TrustedTransport()
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("key"))
	if err != nil {
		t.Fatal(err)
	}
	response, err := NewClient(transport, 100, false).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusTemporaryRedirect || requests != 1 {
		t.Errorf("%s after %d requests", response.Status, requests)
	}
}

// An endpoint that is not allowed is not connected to, by whatever way.
func TestTransportChecksHosts(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request arrived") }))
	defer server.Close()
	hosts, err := ParseHosts(nil, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	transport := New(hosts, nil).Transport(server.Listener.Addr().String(), nil)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := NewClient(transport, 100, false).Do(request)
	if err == nil {
		_ = response.Body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "127.0.0.0/8 is loopback, and not among endpoints.hosts.allow") {
		t.Errorf("got %v", err)
	}
}

// New root certificates are trusted by the next connection of a transport that
// there is already, and the old ones no more.
func TestRootsOfEachConnection(t *testing.T) {
	t.Parallel()
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	roots := x509.NewCertPool()
	d := New(nil, func() *x509.CertPool { return roots })
	for name, transport := range map[string]*http.Transport{
		"to an endpoint":       d.Transport(server.Listener.Addr().String(), nil),
		"to whom is trusted":   d.TrustedTransport(),
		"by a dialler of ours": d.Transport(server.Listener.Addr().String(), d.DialTLS),
	} {
		get := func() error {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := NewClient(transport, 100, false).Do(request)
			if err != nil {
				return err
			}
			transport.CloseIdleConnections()
			return response.Body.Close()
		}
		roots = x509.NewCertPool()
		if err := get(); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("%s, not trusted: %v", name, err)
		}
		roots = x509.NewCertPool()
		roots.AddCert(server.Certificate())
		if err := get(); err != nil {
			t.Errorf("%s, trusted now: %v", name, err)
		}
	}
}

// A proxy is asked for hosts whose names are allowed, and may itself be where no
// endpoint may.
func TestTransportBehindProxy(t *testing.T) {
	asked := make(chan string, 10)
	_ = proxy.SetDeadline(time.Time{})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := proxy.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
				asked <- r.Method + " " + r.Host
				_, _ = io.WriteString(conn, "HTTP/1.1 403 No\r\n\r\n")
			}
			_ = conn.Close()
		}
	})
	defer serving.Wait()
	defer func() { _ = proxy.SetDeadline(time.Now()) }() // ends Accept, and keeps the address
	for name, test := range map[string]struct {
		allow, deny []string
		says        string // of the error; the proxy lets nobody through
		asked       bool
	}{
		"anywhere":              {nil, nil, "No", true},
		"a listed name":         {[]string{"*.example"}, nil, "No", true},
		"a denied name":         {nil, []string{"*.example"}, "endpoints.hosts.deny has *.example", false},
		"listed networks alone": {[]string{"10.0.0.0/8"}, nil, "behind a proxy, which resolves its name", false},
	} {
		hosts, err := ParseHosts(test.allow, test.deny, false)
		if err != nil {
			t.Fatal(err)
		}
		transport := New(hosts, nil).Transport("topic.example", nil)
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://topic.example/", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := NewClient(transport, 100, false).Do(request)
		if err == nil {
			_ = response.Body.Close()
		}
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", name, err, test.says)
		}
		select {
		case what := <-asked:
			if !test.asked || what != "CONNECT topic.example:443" {
				t.Errorf("%s: the proxy was asked to %s", name, what)
			}
		default:
			if test.asked {
				t.Errorf("%s: the proxy was not asked", name)
			}
		}
	}
}
