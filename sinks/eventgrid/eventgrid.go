// Package eventgrid sends events to an Azure Event Grid topic.
//
// It uses azcore's HTTP pipeline rather than the azeventgrid client, which
// would decode and encode every event once more.
package eventgrid

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/outbound"
	"twinegress/sinks"
	"twinegress/sinks/entra"
)

const (
	// maxBytes is Event Grid's limit for one request, and for one event.
	maxBytes = 1 << 20
	// busyWait is the wait after a 429 that doesn't say how long to wait.
	busyWait = 10 * time.Second
	// maxWait is the longest wait that is taken from an answer. It is longer than
	// any that is kept (30 minutes, backoff.max), and short enough to be added up.
	maxWait = 24 * time.Hour
	// maxReply is how many bytes of an answer's body are read. Event Grid's own
	// answers have less than 1 KiB.
	maxReply = 8 << 10
)

// Sink is a sinks.Sink for one topic and key, or identity.
type Sink struct {
	url       string
	pipeline  runtime.Pipeline
	transport *http.Transport
	identity  *entra.Identity // nil: with a key
	host      string
	reached   atomic.Bool // the last connection came about
}

// Opener returns the factory of the sinks for topics. dialer makes their
// connections; identity is for endpoints without keys.
func Opener(dialer *outbound.Dialer, identity *entra.Identity) sinks.Open {
	return func(endpoint endpoints.Endpoint, key sinks.Key) (sinks.Sink, error) {
		return open(endpoint, key, dialer, identity), nil
	}
}

func open(endpoint endpoints.Endpoint, key sinks.Key, dialer *outbound.Dialer, identity *entra.Identity) *Sink {
	s := &Sink{host: endpoint.Path, url: "https://" + endpoint.Path + "/api/events?api-version=2018-01-01"}
	var credential policy.Policy
	if endpoint.Authentication == endpoints.AuthenticationIdentity {
		s.identity = identity
		credential = runtime.NewBearerTokenPolicy(identity, []string{entra.EventGrid}, nil)
	} else {
		secret := azcore.NewKeyCredential(key.ConnectionString(endpoint))
		credential = runtime.NewKeyCredentialPolicy(secret, "aeg-sas-key", nil)
	}
	s.transport = dialer.Transport(endpoint.Path, func(ctx context.Context, address string) (net.Conn, error) {
		s.reached.Store(false)
		conn, err := dialGathering(ctx, dialer, address)
		s.reached.Store(err == nil)
		return conn, err
	})
	s.pipeline = runtime.NewPipeline("twinegress", "v1", runtime.PipelineOptions{
		PerRetry: []policy.Policy{credential},
	}, &policy.ClientOptions{
		Retry:     policy.RetryOptions{MaxRetries: -1}, // the tries are the sender's
		Transport: outbound.NewClient(s.transport, maxReply, true),
	})
	return s
}

// Send posts as many events as fit in one request, as a JSON array.
func (s *Sink) Send(ctx context.Context, events []*event.Event) (int, error) {
	if err := s.identity.Check(ctx, entra.EventGrid); err != nil {
		return 0, err
	}
	if len(events[0].Body) > maxPooled {
		// It isn't copied to be refused: each endpoint would have a copy of it at once.
		return 1, tooLarge(events[0])
	}
	buffer := buffers.Get().(*[]byte)
	body, n := build(*buffer, events)
	if *buffer = body; cap(body) <= maxPooled {
		defer buffers.Put(buffer)
	}
	if len(body) > maxBytes {
		return 1, tooLarge(events[0])
	}
	return n, s.post(ctx, body)
}

func tooLarge(ev *event.Event) error {
	return &sinks.Error{Reason: event.TooLarge, Err: fmt.Errorf("an event of %d bytes is larger than the %d that Event Grid takes", len(ev.Body), maxBytes)}
}

// Check posts an empty array: the service checks the key before the events, and
// there is none to store. Whether it accepts an array without events or calls it
// bad data is not documented; either answer means that the topic exists and the
// key is right. It does not check that the topic's schema is Event Grid's, as it
// has to be.
func (s *Sink) Check(ctx context.Context) error {
	if err := s.identity.Check(ctx, entra.EventGrid); err != nil {
		return err
	}
	err := s.post(ctx, []byte("[]"))
	if e, ok := errors.AsType[*sinks.Error](err); ok && e.Reason == event.Rejected {
		return nil
	}
	return err
}

// post sends one request.
func (s *Sink) post(ctx context.Context, body []byte) error {
	request, err := runtime.NewRequest(ctx, http.MethodPost, s.url)
	if err != nil {
		return err
	}
	content := &reader{r: bytes.NewReader(body)}
	defer content.release() // before the caller reuses the body's memory
	if err := request.SetBody(content, "application/json; charset=utf-8"); err != nil {
		return err
	}
	runtime.SkipBodyDownload(request) // of a success, which needs no copy; that of an error is read all the same
	response, err := s.pipeline.Do(request)
	if err != nil {
		return s.unreachable(err)
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		// Read to its end, so that the connection is used again.
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			return s.unreachable(err)
		}
		return nil
	}
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return s.unreachable(err)
	}
	e := classify(response, text)
	if s.identity != nil && response.StatusCode == http.StatusForbidden {
		e.Reason = event.Unauthorized // it has no role that lets it send
	}
	return s.explained(e, response.StatusCode)
}

// classify returns the error of an answer; see the table of Event Grid's status
// codes in "Troubleshoot Azure Event Grid errors".
func classify(response *http.Response, text []byte) *sinks.Error {
	err := fmt.Errorf("HTTP %s: %s", response.Status, words(text))
	switch code := response.StatusCode; {
	case code == http.StatusUnauthorized:
		return &sinks.Error{Reason: event.Unauthorized, Err: err}
	case code == http.StatusBadRequest:
		return &sinks.Error{Reason: event.Rejected, Err: err}
	case code == http.StatusRequestEntityTooLarge:
		return &sinks.Error{Reason: event.TooLarge, Err: err}
	case code == http.StatusTooManyRequests:
		return &sinks.Error{Reason: event.Throttled, Wait: retryAfter(response, busyWait), Err: err}
	case (code == http.StatusRequestTimeout || code >= http.StatusInternalServerError) && response.Header.Get("Retry-After") != "":
		return &sinks.Error{Reason: event.Throttled, Wait: retryAfter(response, busyWait), Err: err}
	}
	return &sinks.Error{Reason: event.Unreachable, Err: err}
}

// words returns the text of an answer in one line: the services indent theirs.
// What may be half a word at the end of one that was cut is left out, since it may
// be half of a key, which nobody recognises.
func words(text []byte) string {
	all := bytes.Fields(text)
	if len(text) >= maxReply && len(all) > 1 {
		all = all[:len(all)-1]
	}
	return string(bytes.Join(all, []byte(" ")))
}

// retryAfter returns the wait in the header, which has two forms (RFC 9110,
// section 10.2.3), or otherwise. It is from 0 to maxWait, whatever the service
// says: a number of seconds that no time.Duration can hold, or the year 9999.
func retryAfter(response *http.Response, otherwise time.Duration) time.Duration {
	value := response.Header.Get("Retry-After")
	// A number past 64 bits is still one: ParseUint returns the largest.
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, uint64(maxWait/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(time.Until(at), 0), maxWait)
	}
	return otherwise
}

// Close closes the idle connections.
func (s *Sink) Close(context.Context) error {
	s.transport.CloseIdleConnections()
	return nil
}
