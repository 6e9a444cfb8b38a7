package sinktest

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
	"twinegress/internal/event"
	"twinegress/sinks/entra"
)

// bearerToken is the one that the emulated service takes.
const bearerToken = "eyJ0eXAiOiJKV1QifQ.dG9rZW4tb2YtdGhlLXN1aXRl.c2lnbmF0dXJl"

// credential stands for Entra ID, up to where it fails.
type credential struct {
	scope string

	mu     sync.Mutex
	err    error
	silent bool
}

// GetToken is azcore.TokenCredential's.
func (c *credential) GetToken(ctx context.Context, options policy.TokenRequestOptions) (azcore.AccessToken, error) {
	c.mu.Lock()
	err, silent := c.err, c.silent
	c.mu.Unlock()
	switch {
	case silent:
		<-ctx.Done()
		return azcore.AccessToken{}, ctx.Err()
	case err != nil:
		return azcore.AccessToken{}, err
	case !slices.Equal(options.Scopes, []string{c.scope}):
		return azcore.AccessToken{}, errors.New("a token for another service")
	}
	return azcore.AccessToken{Token: bearerToken, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func (c *credential) set(err error, silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err, c.silent = err, silent
}

func (r *rig) noIdentity() { r.credential.set(errors.New("nobody is logged in"), false) }
func (r *rig) noTokens() {
	r.credential.set(&net.OpError{Op: "dial", Err: errors.New("connection refused")}, false)
}
func (r *rig) silentTokens()   { r.credential.set(nil, true) }
func (r *rig) tokensAsBefore() { r.credential.set(nil, false) }

// identityCells are what can go wrong with an identity, and that all else goes
// wrong as it does with a key.
func identityCells() []cell {
	return []cell{
		{
			name: "identity refused", identity: true, fault: emulator.Fault{RejectKey: "identity"},
			reason: event.Unauthorized, cause: `this process's identity: .*[Uu]nauthorized`,
		},
		{
			name: "identity refused from the start", identity: true, cold: true, fault: emulator.Fault{RejectKey: "identity"},
			reason: event.Unauthorized, cause: `this process's identity: .*[Uu]nauthorized`,
		},
		{
			name: "no identity", identity: true, cold: true, breaks: (*rig).noIdentity, mends: (*rig).tokensAsBefore,
			reason: event.Unauthorized, cause: `no token from Entra ID: nobody is logged in`,
		},
		{
			name: "tokens can't be had", identity: true, cold: true, breaks: (*rig).noTokens, mends: (*rig).tokensAsBefore,
			reason: event.Unreachable, cause: `no token from Entra ID: .*connection refused`,
		},
		{
			name: "tokens never come", identity: true, cold: true, breaks: (*rig).silentTokens, mends: (*rig).tokensAsBefore,
			reason: event.Unreachable, cause: `no token from Entra ID: .*(` + timedOut + `)`,
		},
		{
			name: "with an identity, keys refused", identity: true, fault: emulator.Fault{RejectKey: "both"}, fate: delivered,
		},
		{
			name: "with an identity, cut before it is stored", identity: true, once: true, fault: emulator.Fault{Cut: emulator.CutBefore},
			reason: event.Unreachable, cause: lost,
		},
		{
			name: "with an identity, unreachable", identity: true, whole: true, fault: emulator.Fault{Down: true},
			reason: event.Unreachable, cause: `connection refused|EOF|reset by peer`,
		},
	}
}

// withIdentity is the endpoint without its keys.
func (s Service) withIdentity(endpoint endpoints.Endpoint, e *emulator.Emulator) endpoints.Endpoint {
	endpoint.Authentication = endpoints.AuthenticationIdentity
	endpoint.ConnectionString, endpoint.SecondaryConnectionString = "", ""
	if !s.isGrid() {
		endpoint.ConnectionString = "Endpoint=sb://" + e.AMQPAddr() + "/"
	}
	return endpoint
}

func (s Service) scope() string {
	switch s.Type {
	case endpoints.TypeEventHub:
		return entra.EventHubs
	case endpoints.TypeServiceBus:
		return entra.ServiceBus
	}
	return entra.EventGrid
}
