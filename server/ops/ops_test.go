package ops

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slowReader is a client that doesn't read until it is told to.
type slowReader struct {
	*httptest.ResponseRecorder
	open chan struct{}
}

func (s slowReader) Write(p []byte) (int, error) {
	<-s.open
	return s.ResponseRecorder.Write(p)
}

// However many clients want the metrics, few replies are in memory; health answers.
func TestScrapesAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		scrapes := 0
		registry := prometheus.NewRegistry()
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "scrapes"}, func() float64 {
			mu.Lock()
			defer mu.Unlock()
			scrapes++
			return 1
		}))
		handler := New(registry, func() []string { return nil })
		get := func(path string, w http.ResponseWriter) { handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil)) }
		open := make(chan struct{})
		codes := make(chan int, 10)
		for range cap(codes) {
			go func() {
				w := slowReader{httptest.NewRecorder(), open}
				get("/metrics", w)
				codes <- w.Code
			}()
		}
		synctest.Wait()
		if scrapes != maxScrapes {
			t.Errorf("%d scrapes at a time", scrapes)
		}
		for _, path := range []string{"/healthz", "/readyz"} {
			w := httptest.NewRecorder()
			if get(path, w); w.Code != 200 {
				t.Errorf("%s: %d", path, w.Code)
			}
		}
		close(open) // those that wait have their turn
		synctest.Wait()
		if scrapes != cap(codes) {
			t.Errorf("%d of %d scrapes", scrapes, cap(codes))
		}
		for range cap(codes) {
			if code := <-codes; code != 200 {
				t.Error(code)
			}
		}
	})
}

// A scrape doesn't wait for ever for others, and a client that doesn't read loses its
// connection.
func TestSlowScrapes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "g", Help: strings.Repeat("x", 1<<20)}, func() float64 { return 1 }))
		handler := New(registry, func() []string { return nil })
		var clients, servers []net.Conn
		for range maxScrapes {
			client, conn := net.Pipe()
			clients, servers = append(clients, client), append(servers, conn)
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute, WriteTimeout: time.Minute}
		l := &pipes{conns: servers, closed: make(chan struct{})}
		go func() { _ = server.Serve(l) }()
		for _, c := range clients {
			_, _ = io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: ops\r\n\r\n")
		}
		synctest.Wait()
		begun := time.Now()
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if took := time.Since(begun); w.Code != 503 || took != scrapeWait || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d after %v", w.Code, took)
		}
		time.Sleep(time.Second)
		w = httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		if took := time.Since(begun); w.Code != 200 || took != scrapeTimeout {
			t.Errorf("%d after %v", w.Code, took)
		}
		for _, c := range clients {
			_ = c.Close()
		}
		_ = server.Close()
		synctest.Wait()
	})
}

// pipes is a listener with these connections.
type pipes struct {
	conns  []net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	if len(p.conns) > 0 {
		c := p.conns[0]
		p.conns = p.conns[1:]
		return c, nil
	}
	<-p.closed
	return nil, net.ErrClosed
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
