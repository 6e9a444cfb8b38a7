package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/config"
)

// caller is the authenticated sender of a request.
type caller struct {
	name   string // for the log and for the rate limit
	read   bool   // write includes it
	write  bool
	events bool // may see what is in events; neither of the others includes it
}

// callerKey is the context's key of a request's caller.
type callerKey struct{}

// maySeeEvents returns nil, or the reply to a caller without the right to see what
// is in events. An operation that shows any of it calls it first.
func maySeeEvents(ctx context.Context) error {
	who := ctx.Value(callerKey{}).(caller) // every request passes the handler
	if who.events {
		return nil
	}
	return failure(http.StatusForbidden, who.name+" may not see what is in events: its token in api.tokens needs events: true, or, of an issuer, the role api.oidc.eventsRole")
}

// authenticator authenticates callers, by configured tokens and an issuer's.
type authenticator struct {
	tokens []config.Token
	oidc   *issuer // nil: none
}

// unauthorized returns a 401 with its challenges. Basic is for browsers, which ask
// the user for the token; it isn't offered to a client that sent a bearer token.
func unauthorized(sentBearer bool, why string) *Error {
	e := failure(http.StatusUnauthorized, why)
	if sentBearer {
		return e.with("WWW-Authenticate", `Bearer realm="twinegress", error="invalid_token", error_description="`+quotable(why)+`"`)
	}
	return e.with("WWW-Authenticate", `Bearer realm="twinegress"`).
		with("WWW-Authenticate", `Basic realm="twinegress: any name, the token as password", charset="UTF-8"`)
}

// quotable returns a text that fits into a quoted string of a header.
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '\''
		}
		return r
	}, s)
}

// credentials returns a request's token: a bearer token, or the password of Basic
// authentication with any user name.
func credentials(r *http.Request) (token string, bearer bool) {
	if _, password, ok := r.BasicAuth(); ok {
		return password, false
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), true
}

// refusal is an error that says why a token is refused.
type refusal struct{ why string }

func (r refusal) Error() string { return r.why }

// authenticate returns the caller with a token. An error is a refusal, or says why
// the token can't be checked now.
func (a *authenticator) authenticate(ctx context.Context, token string) (caller, error) {
	if t := findToken(a.tokens, token); t != nil {
		return caller{name: t.Name, read: true, write: t.Role == config.RoleWrite, events: t.Events}, nil
	}
	if a.oidc != nil && strings.Count(token, ".") == 2 {
		return a.oidc.authenticate(ctx, token)
	}
	return caller{}, refusal{"the token is not known here"}
}

// findToken compares a token with every configured one in constant time.
func findToken(tokens []config.Token, given string) (found *config.Token) {
	sum := sha256.Sum256([]byte(given))
	digest := hex.AppendEncode(nil, sum[:])
	for i := range tokens {
		if subtle.ConstantTimeCompare(digest, []byte(strings.ToLower(tokens[i].SHA256))) == 1 {
			found = &tokens[i]
		}
	}
	return found
}

// admit returns the caller of a request that may proceed, or the reply that refuses
// it.
func (h *handler) admit(r *http.Request) (caller, *Error) {
	token, bearer := credentials(r)
	if token == "" {
		return caller{}, unauthorized(false, "a token is required: Authorization: Bearer TOKEN")
	}
	from := clientNetwork(r)
	this := shownToken{from, sha256.Sum256([]byte(token))}
	guesses := h.guesses.of(from)
	if guesses.TokensAt(time.Now()) < 1 && !h.shown.lately(this) {
		return caller{}, tooMany(guesses, "too many tokens from this address were refused")
	}
	who, err := h.auth.authenticate(r.Context(), token)
	if err != nil {
		if _, refused := errors.AsType[refusal](err); !refused {
			return caller{}, failure(http.StatusServiceUnavailable, "the token can't be checked right now: "+err.Error()).with("Retry-After", "5")
		}
		guesses.Allow()
		h.shown.refused(this)
		if guesses.TokensAt(time.Now()) < 1 { // then at most once a second
			h.log.Warn("many tokens from one address were refused: it has to wait", zap.String("from", r.RemoteAddr))
		}
		return caller{}, unauthorized(bearer, err.Error())
	}
	if who.read || who.write {
		h.shown.accepted(this)
	}
	if calls := h.calls.of(who.name); !calls.Allow() {
		return who, tooMany(calls, fmt.Sprintf("too many requests: %d a second are allowed to %s", h.calls.burst, who.name))
	}
	if !who.read && !who.write {
		return who, failure(http.StatusForbidden, "the token is valid, but gives no role: "+h.auth.oidc.wanted())
	}
	// A browser sends remembered credentials with the requests of any site.
	if err := h.crossOrigin.Check(r); err != nil {
		return who, failure(http.StatusForbidden, "this request comes from another site's page: "+err.Error())
	}
	if !who.write && r.Method != http.MethodGet && r.Method != http.MethodHead {
		return who, failure(http.StatusForbidden, who.name+" may read and not change anything: a token with the role write is required")
	}
	return who, nil
}
