// Package entra is this process's own identity at Microsoft Entra ID, with
// which an endpoint can be sent to in place of its keys. One serves all sinks.
package entra

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"twinegress/internal/event"
	"twinegress/sinks"
)

// The scopes that the services' tokens are for. The first two have to be those
// that the SDKs ask for, two slashes included, or Check would fetch tokens that
// nobody uses.
const (
	EventHubs  = "https://eventhubs.azure.net//.default"
	ServiceBus = "https://servicebus.azure.net//.default"
	EventGrid  = "https://eventgrid.azure.net/.default"
)

const (
	// patience bounds one request for a token: the AMQP SDKs ask without a limit.
	patience = 10 * time.Second
	// refreshBefore is how long before its end a token is renewed; refreshEvery
	// is how often that is tried while the old one is still good.
	refreshBefore = 5 * time.Minute
	refreshEvery  = 30 * time.Second
	// maxMessage is how much is kept of what Entra ID answers.
	maxMessage = 1000
)

// Identity gives tokens, each from memory as long as it is good. (Some of the
// credentials behind it start a program for every token.) It is the
// azcore.TokenCredential that the SDKs are given.
type Identity struct {
	source func() (azcore.TokenCredential, error)

	mu     sync.Mutex
	scopes map[string]*scope
}

// scope is one audience's token.
type scope struct {
	turn chan struct{} // held by who fetches

	mu    sync.Mutex
	token azcore.AccessToken
	next  time.Time // no renewal before that
}

// New is the identity of DefaultAzureCredential: environment, workload identity
// and managed identity, which are for production, then the developer's own
// command-line tools. AZURE_TOKEN_CREDENTIALS narrows that down, as with every
// program of this SDK, so there is no configuration key of ours for it. The
// credential is made when it is first needed. roots are further root
// certificates, or nil.
func New(roots *x509.CertPool) *Identity {
	return newDefault(&azidentity.DefaultAzureCredentialOptions{}, roots)
}

func newDefault(options *azidentity.DefaultAzureCredentialOptions, roots *x509.CertPool) *Identity {
	return newIdentity(sync.OnceValues(func() (azcore.TokenCredential, error) {
		if roots != nil {
			transport := http.DefaultTransport.(*http.Transport).Clone()
			transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
			options.Transport = &http.Client{Transport: transport}
		}
		return azidentity.NewDefaultAzureCredential(options)
	}))
}

// Of is the identity of a credential.
func Of(credential azcore.TokenCredential) *Identity {
	return newIdentity(func() (azcore.TokenCredential, error) { return credential, nil })
}

func newIdentity(source func() (azcore.TokenCredential, error)) *Identity {
	return &Identity{source: source, scopes: make(map[string]*scope)}
}

// Check makes sure that there is a token for a scope. A sink calls it before
// each send: the AMQP SDKs ask for tokens without the send's context, and
// report a failure as a lost connection. What it gives back is nil or says what
// is to be done. A nil Identity, a sink's with a key, needs no token.
func (i *Identity) Check(ctx context.Context, scope string) error {
	if i == nil {
		return nil
	}
	_, err := i.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	if err == nil {
		return nil
	}
	return &sinks.Error{Reason: reasonOf(ctx, err), Err: fmt.Errorf("no token from Entra ID: %w", shortened{err})}
}

// GetToken is azcore.TokenCredential's.
func (i *Identity) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if options.Claims != "" {
		return i.fetch(ctx, options) // a challenge: what we have isn't good enough
	}
	s := i.scope(strings.Join(options.Scopes, " "))
	if token, fresh, good := s.held(); fresh {
		return token, nil
	} else if good {
		select {
		case s.turn <- struct{}{}:
		default:
			return token, nil // another is renewing it
		}
	} else {
		select {
		case s.turn <- struct{}{}:
		case <-ctx.Done():
			return azcore.AccessToken{}, context.Cause(ctx)
		}
	}
	defer func() { <-s.turn }()
	token, fresh, good := s.held() // again: another may have fetched it
	if fresh {
		return token, nil
	}
	fetched, err := i.fetch(ctx, options)
	switch {
	case err == nil:
		s.hold(fetched)
		return fetched, nil
	case good: // it couldn't be renewed
		s.postpone()
		return token, nil
	}
	return azcore.AccessToken{}, err
}

// held gives the token in memory. Good, it can be used; fresh, it needs no
// renewal either.
func (s *scope) held() (token azcore.AccessToken, fresh, good bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return s.token, now.Before(s.next), now.Before(s.token.ExpiresOn.Add(-refreshEvery))
}

func (s *scope) hold(token azcore.AccessToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.next = token, token.ExpiresOn.Add(-refreshBefore)
	if !token.RefreshOn.IsZero() {
		s.next = token.RefreshOn
	}
}

func (s *scope) postpone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = time.Now().Add(refreshEvery)
}

func (i *Identity) scope(name string) *scope {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.scopes[name]
	if s == nil {
		s = &scope{turn: make(chan struct{}, 1)}
		i.scopes[name] = s
	}
	return s
}

func (i *Identity) fetch(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	credential, err := i.source()
	if err != nil {
		return azcore.AccessToken{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	token, err := credential.GetToken(ctx, options)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err) // which azidentity's errors don't wrap
	}
	return token, err
}

// reasonOf tells an identity that is refused, or that there is none, from a token
// endpoint that can't be asked.
func reasonOf(ctx context.Context, err error) event.Reason {
	if ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return event.Unreachable
	}
	if failed, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok {
		r := failed.RawResponse
		if r != nil && r.StatusCode >= 400 && r.StatusCode < 500 &&
			r.StatusCode != http.StatusRequestTimeout && r.StatusCode != http.StatusTooManyRequests {
			return event.Unauthorized
		}
		return event.Unreachable
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return event.Unreachable
	}
	return event.Unauthorized // no credential has what it needs to ask at all
}

// shortened is an error whose text is one line of bounded length: azidentity's
// are whole pages, with one credential's failure after the other.
type shortened struct{ error }

func (s shortened) Error() string {
	words := strings.FieldsFunc(s.error.Error(), func(r rune) bool { return r <= ' ' })
	var b strings.Builder
	for _, word := range words {
		if strings.Trim(word, "-") == "" {
			continue // a rule across the page
		}
		if b.Len()+len(word) > maxMessage {
			b.WriteString(" …")
			break
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(word)
	}
	return b.String()
}

func (s shortened) Unwrap() error { return s.error }
