// Package eventgrid sends events to an Azure Event Grid topic.
//
// It uses azcore's HTTP pipeline rather than the azeventgrid client, which
// would decode and encode every event once more.
package eventgrid

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"twinegress/endpoints"
	"twinegress/internal/event"
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
	// maxReply is how many bytes of a refusal's text are kept.
	maxReply = 512
)

// Sink is a sinks.Sink for one topic and key, or identity.
type Sink struct {
	url       string
	pipeline  runtime.Pipeline
	transport *http.Transport
	identity  *entra.Identity // nil: with a key
}

// Opener returns the factory of the sinks for topics. roots are further root
// certificates, or nil; identity is for endpoints without keys.
func Opener(roots *x509.CertPool, identity *entra.Identity) sinks.Open {
	return func(endpoint endpoints.Endpoint, key sinks.Key) (sinks.Sink, error) {
		return open(endpoint, key, roots, identity), nil
	}
}

func open(endpoint endpoints.Endpoint, key sinks.Key, roots *x509.CertPool, identity *entra.Identity) *Sink {
	s := &Sink{url: "https://" + endpoint.Path + "/api/events?api-version=2018-01-01"}
	var credential policy.Policy
	if endpoint.Authentication == endpoints.AuthenticationIdentity {
		s.identity = identity
		credential = runtime.NewBearerTokenPolicy(identity, []string{entra.EventGrid}, nil)
	} else {
		secret := azcore.NewKeyCredential(key.ConnectionString(endpoint))
		credential = runtime.NewKeyCredentialPolicy(secret, "aeg-sas-key", nil)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = transport.MaxIdleConns
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12} // nil: the system's
	useGatheringConns(transport)
	s.transport = transport
	s.pipeline = runtime.NewPipeline("twinegress", "v1", runtime.PipelineOptions{
		PerRetry: []policy.Policy{credential},
	}, &policy.ClientOptions{
		Retry:     policy.RetryOptions{MaxRetries: -1}, // the tries are the sender's
		Transport: &http.Client{Transport: transport, CheckRedirect: noRedirect},
	})
	return s
}

// noRedirect makes a redirection an answer like any other. To follow it would
// send the key to another host, and a POST may become a GET, whose answer says
// nothing about the events. A topic does not redirect; a proxy that wants a
// log-in does.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Send posts as many events as fit in one request, as a JSON array.
func (s *Sink) Send(ctx context.Context, events []*event.Event) (int, error) {
	if err := s.identity.Check(ctx, entra.EventGrid); err != nil {
		return 0, err
	}
	buffer := buffers.Get().(*[]byte)
	body, n := build(*buffer, events)
	if *buffer = body; cap(body) <= maxPooled {
		defer buffers.Put(buffer)
	}
	if len(body) > maxBytes {
		return 1, &sinks.Error{Reason: event.TooLarge, Err: fmt.Errorf("an event of %d bytes is larger than the %d that Event Grid takes", len(events[0].Body), maxBytes)}
	}
	return n, s.post(ctx, body)
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
	runtime.SkipBodyDownload(request) // or the pipeline would read all of it, of any size
	response, err := s.pipeline.Do(request)
	if err != nil {
		return &sinks.Error{Reason: event.Unreachable, Err: err}
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReply))
	// The rest is read, up to a limit, so that the connection is used again.
	_, drained := io.Copy(io.Discard, io.LimitReader(response.Body, maxBytes))
	if err := errors.Join(err, drained, response.Body.Close()); err != nil {
		return &sinks.Error{Reason: event.Unreachable, Err: err}
	}
	if response.StatusCode == http.StatusOK {
		return nil
	}
	e := classify(response, text)
	if s.identity != nil && response.StatusCode == http.StatusForbidden {
		e.Reason = event.Unauthorized // it has no role that lets it send
	}
	return e
}

// classify returns the error of an answer; see the table of Event Grid's status
// codes in "Troubleshoot Azure Event Grid errors".
func classify(response *http.Response, text []byte) *sinks.Error {
	err := fmt.Errorf("HTTP %s: %s", response.Status, text)
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
