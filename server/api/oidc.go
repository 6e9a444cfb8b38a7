package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"go.uber.org/zap"

	"twinegress/internal/config"
)

const (
	// issuerTimeout bounds each request to the issuer. A caller waits for at most
	// two.
	issuerTimeout = 5 * time.Second
	// refreshAfter bounds how long a key that the issuer withdrew is accepted. A new
	// key is fetched with the first token that it signed.
	refreshAfter = time.Hour
	// retryAfter is the pause after a request to the issuer failed.
	retryAfter = 5 * time.Second
)

// issuer checks the tokens of an OpenID Connect issuer. It sends the issuer no
// request before the first token: events flow even if it can't be reached.
type issuer struct {
	config.OIDC
	client *http.Client
	log    *zap.Logger
	now    func() time.Time

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier
	err      error     // of the last discovery
	due      time.Time // of the next one
}

func newIssuer(o config.OIDC, log *zap.Logger) *issuer {
	if o.Issuer == "" {
		return nil
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true // there is a request an hour
	return &issuer{
		OIDC: o, log: log, now: time.Now,
		client: &http.Client{Timeout: issuerTimeout, Transport: transport},
	}
}

// CheckIssuer returns an error unless the issuer can be reached and describes
// itself as it should.
func CheckIssuer(ctx context.Context, o config.OIDC) error {
	i := newIssuer(o, zap.NewNop())
	_, err := oidc.NewProvider(oidc.ClientContext(ctx, i.client), o.Issuer)
	return err
}

// current returns the verifier of a recent discovery, or of the last one if the
// issuer can't be reached.
func (i *issuer) current(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.now().Before(i.due) {
		return i.verifier, i.err
	}
	// It doesn't end with this caller's request: others wait for it, too.
	provider, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), i.client), i.Issuer)
	if err != nil {
		i.due = i.now().Add(retryAfter)
		i.log.Warn("the issuer of api.oidc can't be reached", zap.String("issuer", i.Issuer), zap.Error(err))
		if i.verifier == nil {
			i.err = errors.New("the issuer " + i.Issuer + " can't be reached; the log says why")
		}
		return i.verifier, i.err
	}
	// The issuer's algorithms come from the discovery. The library supports only
	// those with a public key, and defaults to RS256.
	i.verifier, i.err = provider.Verifier(&oidc.Config{ClientID: i.Audience, Now: i.now}), nil
	i.due = i.now().Add(refreshAfter)
	return i.verifier, nil
}

// authenticate checks a JWT: signature, issuer, audience, time, role.
func (i *issuer) authenticate(ctx context.Context, token string) (caller, error) {
	verifier, err := i.current(ctx)
	if err != nil {
		return caller{}, err
	}
	id, err := verifier.Verify(ctx, token)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return caller{}, ctx.Err()
	case strings.Contains(err.Error(), "fetching keys"): // the error has no type
		i.log.Warn("the keys of api.oidc's issuer can't be had", zap.String("issuer", i.Issuer), zap.Error(err))
		return caller{}, errors.New("the keys of the issuer " + i.Issuer + " can't be had; the log says why")
	default:
		if expired, ok := errors.AsType[*oidc.TokenExpiredError](err); ok {
			return caller{}, refusal{"the token expired at " + expired.Expiry.UTC().Format(time.RFC3339)}
		}
		return caller{}, refusal{"the token is refused: " + short(strings.TrimPrefix(err.Error(), "oidc: "), 200)}
	}
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return caller{}, refusal{"the token's claims can't be read"}
	}
	who := caller{name: "oidc:" + short(id.Subject, 128)}
	if name, ok := claims["preferred_username"].(string); ok && name != "" {
		who.name += " (" + short(name, 128) + ")"
	}
	roles := rolesIn(claims, i.RoleClaim)
	who.read, who.write = slices.Contains(roles, i.ReadRole), slices.Contains(roles, i.WriteRole)
	return who, nil
}

// wanted returns a text about the roles that a token needs.
func (i *issuer) wanted() string {
	return fmt.Sprintf("its claim %s must have %s or %s in it", i.RoleClaim, i.ReadRole, i.WriteRole)
}

// rolesIn returns the roles in a claim: a list, or a text with spaces. The claim's
// name is a key (some are URLs), or else a path of keys with dots.
func rolesIn(claims map[string]any, claim string) []string {
	value, ok := claims[claim]
	if first, rest, nested := strings.Cut(claim, "."); !ok && nested {
		inner, _ := claims[first].(map[string]any)
		return rolesIn(inner, rest)
	}
	switch v := value.(type) {
	case string:
		return strings.Fields(v)
	case []any:
		roles := make([]string, 0, len(v))
		for _, one := range v {
			if s, ok := one.(string); ok {
				roles = append(roles, s)
			}
		}
		return roles
	}
	return nil
}

// short returns a text from outside without control characters, cut to a length.
func short(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
