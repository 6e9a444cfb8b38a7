// Package entra is this process's own identity at Microsoft Entra ID, which a
// sink can use in place of an endpoint's keys. All sinks share one.
package entra

import (
	"context"
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
	"twinegress/internal/outbound"
	"twinegress/sinks"
)

// The scopes of the services' tokens. The first two have to be those that the
// SDKs request, two slashes included, or Check would fetch tokens that nobody
// uses.
const (
	EventHubs  = "https://eventhubs.azure.net//.default"
	ServiceBus = "https://servicebus.azure.net//.default"
	EventGrid  = "https://eventgrid.azure.net/.default"
)

const (
	// fetchTimeout bounds one request for a token: the AMQP SDKs set no limit.
	fetchTimeout = 10 * time.Second
	// refreshBefore is how long before its end a token is renewed; refreshEvery
	// is the interval of tries while the old one is still usable.
	refreshBefore = 5 * time.Minute
	refreshEvery  = 30 * time.Second
	// maxReply is how long an answer of Entra ID may be. A token with the groups of
	// a user has some 10 KiB, and the list of the clouds as much.
	maxReply = 256 << 10
	// maxMessage is how many bytes of Entra ID's answer are kept.
	maxMessage = 1000
)

// Identity is a cache of tokens: some of the credentials behind it start a
// program for every token. It is the azcore.TokenCredential of the SDKs' clients.
type Identity struct {
	source func() (azcore.TokenCredential, error)

	mu     sync.Mutex
	scopes map[string]*scope
}

// scope is the token of one scope.
type scope struct {
	fetching chan struct{} // a semaphore of one

	mu      sync.Mutex
	token   azcore.AccessToken
	renewAt time.Time // not before that
}

// New returns the identity of DefaultAzureCredential: environment, workload
// identity and managed identity, which are for production, then the developer's
// own command-line tools. AZURE_TOKEN_CREDENTIALS selects among them, as in
// every program with this SDK, so there is no configuration key of ours for it.
// The credential is made when it is first needed. dialer makes its connections,
// which may go anywhere: where tokens come from is in the environment, and no
// endpoint has a say in it.
func New(dialer *outbound.Dialer) *Identity {
	return newDefault(&azidentity.DefaultAzureCredentialOptions{}, dialer)
}

func newDefault(options *azidentity.DefaultAzureCredentialOptions, dialer *outbound.Dialer) *Identity {
	return newIdentity(sync.OnceValues(func() (azcore.TokenCredential, error) {
		options.Transport = outbound.NewClient(dialer.TrustedTransport(), maxReply, false)
		return azidentity.NewDefaultAzureCredential(options)
	}))
}

// Of returns the identity of a credential.
func Of(credential azcore.TokenCredential) *Identity {
	return newIdentity(func() (azcore.TokenCredential, error) { return credential, nil })
}

func newIdentity(source func() (azcore.TokenCredential, error)) *Identity {
	return &Identity{source: source, scopes: make(map[string]*scope)}
}

// Check makes sure that there is a token for a scope. A sink calls it before
// each send: the AMQP SDKs request tokens without the send's context, and
// report a failure as a lost connection. Its error is a *sinks.Error. A nil
// Identity, that of a sink with a key, needs no token.
func (i *Identity) Check(ctx context.Context, scope string) error {
	if i == nil {
		return nil
	}
	_, err := i.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{scope}})
	if err == nil {
		return nil
	}
	return explained(&sinks.Error{Reason: reasonOf(ctx, err), Err: shortened{err}})
}

// GetToken is azcore.TokenCredential's.
func (i *Identity) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if options.Claims != "" {
		return i.fetch(ctx, options) // a challenge: the token in the cache is not enough
	}
	s := i.scope(strings.Join(options.Scopes, " "))
	if token, fresh, usable := s.cached(); fresh {
		return token, nil
	} else if usable {
		select {
		case s.fetching <- struct{}{}:
		default:
			return token, nil // another call renews it
		}
	} else {
		select {
		case s.fetching <- struct{}{}:
		case <-ctx.Done():
			return azcore.AccessToken{}, context.Cause(ctx)
		}
	}
	defer func() { <-s.fetching }()
	token, fresh, usable := s.cached() // again: another call may have fetched it
	if fresh {
		return token, nil
	}
	fetched, err := i.fetch(ctx, options)
	switch {
	case err == nil:
		s.store(fetched)
		return fetched, nil
	case usable: // it couldn't be renewed
		s.postpone()
		return token, nil
	}
	return azcore.AccessToken{}, err
}

// cached returns the token in the cache, whether it can be used, and whether it
// needs no renewal either.
func (s *scope) cached() (token azcore.AccessToken, fresh, usable bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return s.token, now.Before(s.renewAt), now.Before(s.token.ExpiresOn.Add(-refreshEvery))
}

func (s *scope) store(token azcore.AccessToken) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token, s.renewAt = token, token.ExpiresOn.Add(-refreshBefore)
	if !token.RefreshOn.IsZero() {
		s.renewAt = token.RefreshOn
	}
}

// postpone puts the next renewal off, after one that failed.
func (s *scope) postpone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewAt = time.Now().Add(refreshEvery)
}

func (i *Identity) scope(name string) *scope {
	i.mu.Lock()
	defer i.mu.Unlock()
	s := i.scopes[name]
	if s == nil {
		s = &scope{fetching: make(chan struct{}, 1)}
		i.scopes[name] = s
	}
	return s
}

func (i *Identity) fetch(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	credential, err := i.source()
	if err != nil {
		return azcore.AccessToken{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	token, err := credential.GetToken(ctx, options)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err) // which azidentity's errors don't wrap
	}
	return token, err
}

// reasonOf returns the reason of an error of azidentity: Unauthorized where the
// identity is refused or there is none, Unreachable where the token endpoint
// did not answer.
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

// shortened is an error whose text is one line of bounded length: that of
// azidentity has several lines for each credential.
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
