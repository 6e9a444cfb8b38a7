package api

import (
	"context"
	"net/http"
	"testing"
)

// Who may see events: a token with that right, an issuer's role, nobody else, whatever
// else it may do.
func TestRightToSeeEvents(t *testing.T) {
	p := newIdentityProvider(t)
	r := p.env()
	auth := authenticator{tokens: r.options.Config.Tokens, oidc: newIssuer(r.options.Config.OIDC, r.options.Log)}
	roles := func(names ...string) string { return p.token(map[string]any{"roles": names}) }
	for token, may := range map[string]bool{
		writer:  false,
		reader:  false,
		watcher: true,
		roles("twinegress.write", "twinegress.read"):   false,
		roles("twinegress.read", "twinegress.events"):  true,
		roles("twinegress.write", "twinegress.events"): true,
		roles("twinegress.read", "events"):             false,
	} {
		who, err := auth.authenticate(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		err = maySeeEvents(context.WithValue(t.Context(), callerKey{}, who))
		if refused, _ := err.(*Error); may != (err == nil) || refused != nil && refused.status != http.StatusForbidden { //nolint:errorlint // never wrapped
			t.Errorf("%s: %v, want it to see events: %t", who.name, err, may)
		}
	}
	// The right alone gives no access.
	if w := r.do(call{method: "GET", path: Base + "/status", token: roles("twinegress.events")}); w.Code != http.StatusForbidden {
		t.Errorf("the right without a role: %d", w.Code)
	}
}
