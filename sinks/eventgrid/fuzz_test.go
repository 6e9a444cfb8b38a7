package eventgrid

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode"
	"unicode/utf8"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/untrusted"
	"twinegress/sinks"
)

// counted counts what is read.
type counted struct {
	net.Conn
	read *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

// Whatever is answered: little of it is read, the wait is bounded, the words are
// short and clean, and nothing goes on running. The answer is head and, so many
// times, body.
func FuzzAnswer(f *testing.F) {
	const key = "a2V5LW9mLXRoZS10b3BpYw=="
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 500 Oops\r\n\r\n" + key,
		"HTTP/1.1 400 " + key + "\r\nContent-Length: 1000000\r\n\r\n",
		"HTTP/1.1 401 \x1b[2J\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n" + key[:4] + "\r\n",
		"HTTP/1.1 429 Slow\r\nRetry-After: 9223372036\r\n\r\n",
		"HTTP/1.1 503 Slow\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n",
		"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 413 Large\r\n\r\n",
		"HTTP/1.1 302 Found\r\nLocation: /\r\nX: ", "HTTP/1.1 101 Switching\r\n\r\n", "\x16\x03\x01", "",
	} {
		f.Add([]byte(head), []byte("and so on "+key), uint16(9))
		f.Add([]byte(head), []byte("x\r\n"), uint16(60_000))
	}
	f.Add([]byte("HTTP/0.0 000 \n\n"), []byte("\xba"+key[1:]), uint16(4)) // escaped, it has what the key lacks
	endpoint := endpoints.Endpoint{Type: endpoints.TypeEventGrid, Path: "topic.example", ConnectionString: key}
	f.Fuzz(func(t *testing.T, head, body []byte, times uint16) {
		answer := append(bytes.Clone(head), bytes.Repeat(body[:min(len(body), 100)], int(times))...)
		var read atomic.Int64
		var serving sync.WaitGroup
		defer serving.Wait()
		s := open(endpoint, sinks.Primary, nil, nil)
		s.transport.Proxy = nil
		s.transport.DialTLSContext = func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			serving.Go(func() {
				defer far.Close()
				r, err := http.ReadRequest(bufio.NewReader(far))
				if err != nil {
					return
				}
				if _, err := io.Copy(io.Discard, r.Body); err == nil {
					_, _ = far.Write(answer)
				}
			})
			return counted{near, &read}, nil
		}
		n, err := s.Send(t.Context(), eventsOf(`{"a":1}`))
		// Headers, the body, and what net/http reads ahead.
		if most := int64(40<<10 + maxReply + 8<<10); read.Load() > most {
			t.Errorf("%d bytes were read", read.Load())
		}
		if n != 1 {
			t.Errorf("%d events were sent", n)
		}
		if e, ok := errors.AsType[*sinks.Error](err); ok && (e.Wait < 0 || e.Wait > maxWait || e.Wait > 0 && e.Reason != event.Throttled) {
			t.Errorf("wait %v, %s", e.Wait, e.Reason)
		} else if err != nil && !ok {
			t.Errorf("an error without a reason: %v", err)
		}
		err = sinks.Check(t.Context(), func(endpoints.Endpoint, sinks.Key) (sinks.Sink, error) { return s, nil }, endpoint, sinks.Primary)
		if err == nil {
			return
		}
		text := err.Error()
		unfit := func(r rune) bool { return !unicode.IsPrint(r) }
		if utf8.RuneCountInString(text) > untrusted.MaxLength+50 || strings.ContainsFunc(text, unfit) || strings.Contains(text, strings.TrimRight(key, "=")) {
			t.Errorf("not fit to be shown: %q", text)
		}
	})
}
