package eventgrid

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/outbound"
	"twinegress/sinks"
	"twinegress/sinks/entra"
)

func eventsOf(bodies ...string) (events []*event.Event) {
	for _, b := range bodies {
		events = append(events, &event.Event{Body: []byte(b)})
	}
	return events
}

// sized returns an event of exactly that many bytes.
func sized(n int) string { return `{"a":"` + strings.Repeat("x", n-8) + `"}` }

// How many events a request holds, by their sizes.
func TestRequestSize(t *testing.T) {
	topic := `{"topic":"` + strings.Repeat("t", 100) + `","a":1}` // 7 bytes in the request
	tests := map[string]struct {
		events []string
		n      int
		size   int // of the body; 0: not looked at
	}{
		"one":                              {[]string{"{}"}, 1, 4},
		"two":                              {[]string{"{}", "{}"}, 2, 7},
		"exactly full":                     {[]string{sized(1000), sized(maxBytes - 1003)}, 2, maxBytes},
		"one byte over":                    {[]string{sized(1000), sized(maxBytes - 1002)}, 1, 1002},
		"exactly full, and one behind":     {[]string{sized(1000), sized(maxBytes - 1003), "{}"}, 2, maxBytes},
		"one event exactly full":           {[]string{sized(maxBytes - 2), "{}"}, 1, maxBytes},
		"one event too large":              {[]string{sized(maxBytes - 1), "{}"}, 1, maxBytes + 1},
		"what is taken out does not weigh": {[]string{sized(maxBytes - 10), topic}, 2, maxBytes},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			body, n := build(nil, eventsOf(test.events...))
			if n != test.n || len(body) != test.size {
				t.Errorf("%d events in %d bytes, want %d in %d", n, len(body), test.n, test.size)
			}
		})
	}
}

// topic returns a sink whose topic answers so.
func topic(t *testing.T, answer http.HandlerFunc) *Sink {
	t.Helper()
	server := httptest.NewTLSServer(answer)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	s := open(endpoints.Endpoint{
		Type: endpoints.TypeEventGrid, Path: strings.TrimPrefix(server.URL, "https://"),
		ConnectionString: "one", SecondaryConnectionString: "two",
	}, sinks.Secondary, outbound.New(nil, func() *x509.CertPool { return roots }), nil)
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	return s
}

// TestAnswers checks the request, and what Send returns for an answer. The
// meaning of each status is in the suite's table of errors.
func TestAnswers(t *testing.T) {
	date := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	tests := map[string]struct {
		status       int
		header, text string
		identity     bool
		reason       event.Reason
		wait         time.Duration
		atMost       time.Duration // of the wait, if not the same
	}{
		"200": {status: 200},
		"400": {status: 400, reason: event.Rejected},
		// To follow it would send the key to another host; and the answer to the
		// GET that a POST becomes is no delivery.
		"302": {status: 302, header: "Location", text: "/elsewhere", reason: event.Unreachable},
		"307": {status: 307, header: "Location", text: "/elsewhere", reason: event.Unreachable},
		// With keys it is a firewall's answer; with an identity it is mostly a
		// missing role, and the reason should say so.
		"403, with an identity":    {status: 403, identity: true, reason: event.Unauthorized},
		"429, seconds":             {status: 429, header: "Retry-After", text: "17", reason: event.Throttled, wait: 17 * time.Second},
		"429, a date":              {status: 429, header: "Retry-After", text: date, reason: event.Throttled, wait: 59 * time.Minute, atMost: time.Hour},
		"429, a date that is past": {status: 429, header: "Retry-After", text: "Mon, 02 Jan 2006 15:04:05 GMT", reason: event.Throttled},
		"429, nonsense":            {status: 429, header: "Retry-After", text: "soon", reason: event.Throttled, wait: busyWait},
		"429, a negative number":   {status: 429, header: "Retry-After", text: "-5", reason: event.Throttled, wait: busyWait},
		"429, a day":               {status: 429, header: "Retry-After", text: "86400", reason: event.Throttled, wait: maxWait},
		"429, a day and a second":  {status: 429, header: "Retry-After", text: "86401", reason: event.Throttled, wait: maxWait},
		"429, 292 years":           {status: 429, header: "Retry-After", text: "9223372036", reason: event.Throttled, wait: maxWait},
		"429, more than an int":    {status: 429, header: "Retry-After", text: strings.Repeat("9", 40), reason: event.Throttled, wait: maxWait},
		"429, the year 9999":       {status: 429, header: "Retry-After", text: "Fri, 31 Dec 9999 23:59:59 GMT", reason: event.Throttled, wait: maxWait},
		"429, the year 1":          {status: 429, header: "Retry-After", text: "Mon, 01 Jan 0001 00:00:00 GMT", reason: event.Throttled},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requests := 0
			s := topic(t, func(w http.ResponseWriter, r *http.Request) {
				requests++
				body, err := io.ReadAll(r.Body)
				if err != nil || string(body) != `[{"a":1},{"b":2}]` {
					t.Errorf("body is %s, %v", body, err)
				}
				if r.Method != http.MethodPost || r.URL.String() != "/api/events?api-version=2018-01-01" || r.Header.Get("aeg-sas-key") != "two" {
					t.Errorf("%s %s with key %s", r.Method, r.URL, r.Header.Get("aeg-sas-key"))
				}
				if ct := r.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
					t.Errorf("content type is %s", ct)
				}
				if test.header != "" {
					w.Header().Set(test.header, test.text)
				}
				w.WriteHeader(test.status)
				_, _ = w.Write([]byte("said  why" + strings.Repeat("\r\n .", maxReply/4-3) + " half-a-word-or-a-key" + strings.Repeat(".", maxReply)))
			})
			if test.identity {
				s.identity = entra.Of(anybody{})
			}
			n, err := s.Send(t.Context(), eventsOf(`{"a":1}`, `{"b":2}`))
			if n != 2 || requests != 1 {
				t.Errorf("%d events in %d requests", n, requests)
			}
			if test.status == http.StatusOK {
				if err != nil {
					t.Error(err)
				}
				return
			}
			e, ok := errors.AsType[*sinks.Error](err)
			if !ok || e.Reason != test.reason {
				t.Fatalf("got %v, want %s", err, test.reason)
			}
			if !strings.Contains(err.Error(), "said why") || len(err.Error()) > maxReply+100 || strings.Contains(err.Error(), "half") {
				t.Errorf("the error does not say why, or too much: %d bytes", len(err.Error()))
			}
			if e.Wait < test.wait || e.Wait > max(test.wait, test.atMost) {
				t.Errorf("wait is %v, want %v", e.Wait, test.wait)
			}
		})
	}
}

type anybody struct{}

func (anybody) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "x", ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// An event that is far too large is refused without a copy of it, wherever it
// stands: many endpoints may have it at once.
func TestFarTooLargeIsNotCopied(t *testing.T) {
	s := topic(t, func(http.ResponseWriter, *http.Request) {})
	far := sized(16 * maxBytes)
	for name, test := range map[string]struct {
		events []*event.Event
		sent   bool
	}{
		"first":           {eventsOf(far, "{}"), false},
		"behind a small":  {eventsOf("{}", far, "{}"), true},
		"one byte beyond": {eventsOf(sized(maxPooled + 1)), false},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n, err := s.Send(t.Context(), test.events)
		runtime.ReadMemStats(&after)
		e, ok := errors.AsType[*sinks.Error](err)
		if n != 1 || test.sent != (err == nil) || !test.sent && (!ok || e.Reason != event.TooLarge) {
			t.Errorf("%s: Send returns %d, %v", name, n, err)
		}
		if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 2*maxBytes {
			t.Errorf("%s: %d bytes are allocated", name, bytes)
		}
	}
}

func TestTooLargeIsNotSent(t *testing.T) {
	s := topic(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	n, err := s.Send(t.Context(), eventsOf(sized(maxBytes), "{}"))
	if e, ok := errors.AsType[*sinks.Error](err); n != 1 || !ok || e.Reason != event.TooLarge {
		t.Errorf("got %d, %v", n, err)
	}
}

// Bodies use the same memory, one after the other. Where a topic answers before
// it has read the body, net/http goes on reading: it must never read the next
// request's body.
func TestBodiesDontMix(t *testing.T) {
	var arrived atomic.Int32
	s := topic(t, func(w http.ResponseWriter, r *http.Request) {
		if arrived.Add(1)%2 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client gave it up
		}
		letters := bytes.Trim(body, `[{"a:}]`)
		if len(letters) == 0 || bytes.Count(letters, letters[:1]) != len(letters) {
			t.Errorf("a body of several events' bytes: %d of %d are %q", bytes.Count(letters, letters[:1]), len(letters), letters[:1])
		}
	})
	var senders sync.WaitGroup
	for i := range 4 {
		senders.Go(func() {
			for j := range 25 {
				letter := string(rune('b' + (5*i+j)%20))
				_, _ = s.Send(t.Context(), eventsOf(`{"a":"`+strings.Repeat(letter, maxBytes-100)+`"}`))
			}
		})
	}
	senders.Wait()
}
