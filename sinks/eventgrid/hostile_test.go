package eventgrid

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/eventually"
	"twinegress/internal/outbound"
	"twinegress/internal/untrusted"
	"twinegress/sinks"
)

const (
	// flood is how much comes that never should: enough to be seen, and no more,
	// for the machine's sake.
	flood = 64 << 20
	// maxTaken is how much of it may leave the service, for all tries together:
	// what is read, and what the buffers of two sockets take. Those are small here.
	maxTaken = 8 << 20
	// maxGrowth is what the process may grow by, with room for the tests themselves.
	maxGrowth = 32 << 20
)

// hostile is a service that answers each request with bytes of its own.
type hostile struct {
	address  string
	roots    *x509.CertPool
	taken    atomic.Int64 // bytes of the answers
	requests atomic.Int32
	serving  sync.WaitGroup
	close    func()
}

// peer is the service's end of a connection.
type peer struct {
	net.Conn
	taken *atomic.Int64
}

func (p peer) Write(b []byte) (int, error) {
	n, err := p.Conn.Write(b)
	p.taken.Add(int64(n))
	return n, err
}

func newHostile(t *testing.T, answer func(w io.Writer)) *hostile {
	t.Helper()
	certificates := httptest.NewUnstartedServer(nil)
	certificates.StartTLS()
	defer certificates.Close()
	h := &hostile{roots: x509.NewCertPool()}
	h.roots.AddCert(certificates.Certificate())
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.address = listener.Addr().String()
	config := &tls.Config{Certificates: certificates.TLS.Certificates, MinVersion: tls.VersionTLS12}
	h.serving.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			_ = client.(*net.TCPConn).SetWriteBuffer(64 << 10)
			h.serving.Go(func() {
				defer client.Close()
				p := peer{tls.Server(client, config), &h.taken}
				requests := bufio.NewReader(p)
				for {
					r, err := http.ReadRequest(requests)
					if err != nil {
						return
					}
					if _, err := io.Copy(io.Discard, r.Body); err != nil {
						return
					}
					h.requests.Add(1)
					if packings := r.Header.Get("Accept-Encoding"); packings != "" {
						t.Errorf("answers packed with %s are asked for", packings)
					}
					answer(p)
				}
			})
		}
	})
	h.close = func() {
		_ = listener.Close()
		h.serving.Wait()
	}
	return h
}

// letters has what was set aside.
type letters struct {
	mu      sync.Mutex
	details []string
}

func (l *letters) Put(ev *event.Event, _ event.Reason, detail string, _ *sinks.Recipient) {
	l.mu.Lock()
	l.details = append(l.details, detail)
	l.mu.Unlock()
	ev.Chunk.Settle(1)
}

// sender returns the sender of an endpoint there, which backs off at the first
// batch that fails, and stays so.
func (h *hostile) sender(letters *letters) *sinks.Sender {
	return sinks.NewSender(endpoints.Endpoint{
		ID: "4f2d1a5e-0000-4000-8000-000000000001", Type: endpoints.TypeEventGrid, Path: h.address,
		ConnectionString: "a2V5LW9mLXRoZS10b3BpYw==", EventTypes: []string{endpoints.SensorChange},
	}, sinks.Options{
		Linger: time.Millisecond, MaxEvents: 50, BackoffInitial: time.Hour, BackoffMax: time.Hour,
		Timeout: 700 * time.Millisecond, Attempts: 3, ThrottleLimit: time.Minute,
	}, Opener(outbound.New(nil, func() *x509.CertPool { return h.roots }), nil), letters, zap.NewNop())
}

// put dispatches one event and waits for its outcome.
func put(t *testing.T, s *sinks.Sender) sinks.Snapshot {
	t.Helper()
	var settled atomic.Bool
	c := event.NewChunk("twins", 0, 1, 100, func(*event.Chunk) { settled.Store(true) })
	c.Add(0, time.Now().UnixMilli(), 0, nil, []byte(`{"id":"1"}`))
	c.Events = append(c.Events, event.Event{Chunk: c, Record: &c.Records[0], Index: event.NoIndex, Type: event.SensorChange, Body: c.Records[0].Value})
	if err := s.Enqueue(t.Context(), c, []*event.Event{&c.Events[0]}); err != nil {
		t.Fatal(err)
	}
	c.Settle(1)
	eventually.Holds(t, "the event has its outcome", settled.Load)
	return s.Snapshot()
}

// memory returns the bytes of objects and stacks.
func memory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() + samples[1].Value.Uint64()
}

// pour writes a text up to so many bytes.
func pour(w io.Writer, text string, size int) {
	block := bytes.Repeat([]byte(text), 16<<10/len(text)+1)
	for left := size; left > 0; left -= len(block) {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// drip writes a byte at a time for as long as anybody reads it.
func drip(w io.Writer, text string) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if _, err := io.WriteString(w, text); err != nil {
			return
		}
	}
}

func head(status string, headers ...string) string {
	return "HTTP/1.1 " + status + "\r\n" + strings.Join(append(headers, "", ""), "\r\n")
}

// chunk is a chunk of a chunked body, full of it.
var chunk = "4000\r\n" + strings.Repeat("and so on ", 0x4000/10+1)[:0x4000] + "\r\n"

// packed is 64 MiB of zeros, compressed.
var packed = sync.OnceValue(func() string {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed) // a level that there is
	pour(w, "\x00", flood)
	_ = w.Close()
	return b.String()
})

// What a service may answer, and what has to follow. Whatever it is: the endpoint
// backs off, or sets the event aside, with short and clean words; no more than a
// little of the answer is taken; the process stays small; nothing goes on running;
// and the endpoint next to it is delivered to.
func TestHostileService(t *testing.T) {
	long := fmt.Sprint("Content-Length: ", flood)
	tests := map[string]struct {
		answer func(w io.Writer)
		reason event.Reason
		says   string
	}{
		"endless body of an error":   {func(w io.Writer) { _, _ = io.WriteString(w, head("500 Oops", long)); pour(w, "and so on ", flood) }, event.Unreachable, "HTTP 500 Oops: and so on and"},
		"endless body, unauthorized": {func(w io.Writer) { _, _ = io.WriteString(w, head("401 No", long)); pour(w, "and so on ", flood) }, event.Unauthorized, "HTTP 401 No: and so on"},
		"endless body, bad request":  {func(w io.Writer) { _, _ = io.WriteString(w, head("400 No", long)); pour(w, "and so on ", flood) }, event.Rejected, "HTTP 400 No: and so on"},
		"endless body of a redirection": {func(w io.Writer) {
			_, _ = io.WriteString(w, head("302 Found", "Location: /", long))
			pour(w, "and so on ", flood)
		}, event.Unreachable, "HTTP 302"},
		"endless chunks": {func(w io.Writer) {
			_, _ = io.WriteString(w, head("503 Busy", "Transfer-Encoding: chunked"))
			pour(w, chunk, flood)
		}, event.Unreachable, "HTTP 503 Busy: and so on"},
		"endless trailers": {func(w io.Writer) {
			_, _ = io.WriteString(w, head("503 Busy", "Transfer-Encoding: chunked", "Trailer: X")+"0\r\n")
			pour(w, "X: and so on\r\n", flood)
		}, event.Unreachable, ""},
		"endless chunk extensions": {func(w io.Writer) {
			_, _ = io.WriteString(w, head("503 Busy", "Transfer-Encoding: chunked"))
			pour(w, "1;"+strings.Repeat("x", 4000)+"\r\nx\r\n", flood)
		}, event.Unreachable, ""},
		"compressed": {func(w io.Writer) {
			_, _ = io.WriteString(w, head("500 Oops", "Content-Encoding: gzip", fmt.Sprint("Content-Length: ", len(packed())))+packed())
		}, event.Unreachable, "HTTP 500 Oops: "},
		"endless headers": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n")
			pour(w, "X-More: and so on\r\n", flood)
		}, event.Unreachable, "headers exceeded"},
		"one endless header": {func(w io.Writer) {
			_, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\nX-More: ")
			pour(w, "and so on ", flood)
		}, event.Unreachable, "headers exceeded"},
		"endless status line": {func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 500 "); pour(w, "and so on ", flood) }, event.Unreachable, "headers exceeded"},
		"long status line with escapes": {func(w io.Writer) {
			_, _ = io.WriteString(w, head("500 "+strings.Repeat("\x1b]0;owned\x07", 1000), "Content-Length: 0"))
		}, event.Unreachable, `HTTP 500 \u001b]0;owned`},
		"1xx without end": {func(w io.Writer) { pour(w, head("103 Early Hints", "Link: </x>"), flood) }, event.Unreachable, ""},
		"the key in the status line": {func(w io.Writer) {
			_, _ = io.WriteString(w, head("500 a2V5LW9mLXRoZS10b3BpYw== a2V5LW9mLXRoZS10b3BpYw%3D%3D", "Content-Length: 0"))
		}, event.Unreachable, "HTTP 500 *** ***"},
		"the key where the body is cut": {func(w io.Writer) {
			_, _ = io.WriteString(w, head("500 Oops", long)+strings.Repeat(" .", maxReply/2-6)+" a2V5LW9mLXRoZS10b3BpYw==")
			pour(w, "x", flood)
		}, event.Unreachable, "HTTP 500 Oops: . ."},
		"body byte by byte":              {func(w io.Writer) { _, _ = io.WriteString(w, head("500 Oops", long)); drip(w, "x") }, event.Unreachable, "deadline exceeded"},
		"a success's body, byte by byte": {func(w io.Writer) { _, _ = io.WriteString(w, head("200 OK", long)); drip(w, "x") }, event.Unreachable, "deadline exceeded"},
		"headers byte by byte":           {func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 500 "); drip(w, "x") }, event.Unreachable, "deadline exceeded"},
		"silence amid the headers":       {func(w io.Writer) { _, _ = io.WriteString(w, "HTTP/1.1 200 OK\r\n") }, event.Unreachable, "deadline exceeded"},
		"no HTTP":                        {func(w io.Writer) { _, _ = io.WriteString(w, "220 smtp.example ESMTP\r\n\r\n") }, event.Unreachable, "malformed HTTP"},
		"a bad length":                   {func(w io.Writer) { _, _ = io.WriteString(w, head("500 Oops", "Content-Length: -1")) }, event.Unreachable, "bad Content-Length"},
		"throttled for centuries": {func(w io.Writer) {
			_, _ = io.WriteString(w, head("429 Slow", "Retry-After: 9223372036", "Content-Length: 0"))
		}, event.Throttled, "HTTP 429"},
	}
	good := newHostile(t, func(w io.Writer) { _, _ = io.WriteString(w, head("200 OK", "Content-Length: 0")) })
	neighbour := good.sender(new(letters))
	put(t, neighbour)
	delivered := uint64(1)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			known := goleak.IgnoreCurrent()
			packed() // not while memory is measured
			before := memory()
			h := newHostile(t, test.answer)
			var set letters
			s := h.sender(&set)
			snap := put(t, s)
			said := snap.LastError
			if test.reason == event.Rejected {
				said = strings.Join(set.details, "")
			} else if snap.State != sinks.StateBackingOff {
				t.Errorf("the state is %s", snap.State)
			}
			if snap.Counts.Dropped[test.reason] != 1 || !strings.Contains(said, test.says) {
				t.Errorf("delivered %d, dropped %v: %.300q, want %s and %q", snap.Counts.Delivered, snap.Counts.Dropped, said, test.reason, test.says)
			}
			if len(said) > 2*untrusted.MaxLength || strings.ContainsAny(said, "\x1b\x00") || strings.Contains(said, "a2V5") {
				t.Errorf("it is not fit to be shown: %d bytes, %.300q", len(said), said)
			}
			if grown := int64(memory()) - int64(before); grown > maxGrowth {
				t.Errorf("the process grew by %d MiB", grown>>20)
			}
			if n := h.taken.Load(); n > maxTaken {
				t.Errorf("%d KiB were taken, in %d requests", n>>10, h.requests.Load())
			}
			if snap := put(t, neighbour); snap.Counts.Delivered != delivered+1 {
				t.Errorf("the neighbour: %+v", snap.Counts)
			}
			delivered++
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
			h.close()
			if err := goleak.Find(known); err != nil {
				t.Error(err)
			}
		})
	}
	if err := neighbour.Close(context.Background()); err != nil {
		t.Error(err)
	}
	good.close()
}
