package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"twinegress/internal/config"
	"twinegress/internal/untrusted"
)

const (
	// issuerTimeout bounds each request to the issuer. A caller waits for at most
	// two.
	issuerTimeout = 5 * time.Second
	// refreshAfter bounds how long a key that the issuer withdrew is accepted. A new
	// key is fetched with the first token that it signed.
	refreshAfter = time.Hour
	// retryAfter is the pause after a request to the issuer failed, and between two
	// log lines that say so.
	retryAfter = 5 * time.Second
	// maxIssuerReply bounds what is read of a reply. Entra ID's keys have 20 KiB.
	maxIssuerReply = 1 << 20
	maxIssuerHead  = 64 << 10
	// noKeys begins the error of a token whose signature couldn't be checked for
	// want of keys. The error has no type; what comes before the token's own words
	// is the library's, so that no token can say it.
	noKeys = "failed to verify signature: fetching keys "
)

// issuer checks the tokens of an OpenID Connect issuer. It sends the issuer no
// request before the first token: events flow even if it can't be reached.
type issuer struct {
	config.OIDC
	client *http.Client
	log    *zap.Logger
	now    func() time.Time
	warned rate.Sometimes // that there are no keys

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
	transport.DisableKeepAlives = true  // there is a request an hour
	transport.DisableCompression = true // a small reply can unpack to a large one
	transport.MaxResponseHeaderBytes = maxIssuerHead
	return &issuer{
		OIDC: o, log: log, now: time.Now, warned: rate.Sometimes{Interval: retryAfter},
		client: &http.Client{Timeout: issuerTimeout, Transport: bounded{transport}},
	}
}

// bounded fails a reply that is too large, of which the library would read all.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		response.Body = &boundedBody{response.Body, maxIssuerReply}
	}
	return response, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	if b.left -= n; b.left < 0 {
		return 0, fmt.Errorf("the reply is larger than %d bytes", maxIssuerReply)
	}
	return n, err
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
		i.log.Warn("the issuer of api.oidc can't be reached", zap.String("issuer", i.Issuer), zap.String("error", untrusted.Short(err.Error(), 200)))
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
	case strings.HasPrefix(err.Error(), noKeys):
		i.warned.Do(func() {
			i.log.Warn("the keys of api.oidc's issuer can't be had", zap.String("issuer", i.Issuer), zap.String("error", untrusted.Short(err.Error(), 200)))
		})
		return caller{}, errors.New("the keys of the issuer " + i.Issuer + " can't be had; the log says why")
	default:
		if expired, ok := errors.AsType[*oidc.TokenExpiredError](err); ok {
			return caller{}, refusal{"the token expired at " + expired.Expiry.UTC().Format(time.RFC3339)}
		}
		return caller{}, refusal{"the token is refused: " + untrusted.Short(strings.TrimPrefix(err.Error(), "oidc: "), 200)}
	}
	var claims map[string]any
	if err := id.Claims(&claims); err != nil {
		return caller{}, refusal{"the token's claims can't be read"}
	}
	who := caller{name: "oidc:" + untrusted.Short(id.Subject, 128)}
	if name, ok := claims["preferred_username"].(string); ok && name != "" {
		who.name += " (" + untrusted.Short(name, 128) + ")"
	}
	roles := rolesIn(claims, i.RoleClaim)
	who.read, who.write = slices.Contains(roles, i.ReadRole), slices.Contains(roles, i.WriteRole)
	who.events = slices.Contains(roles, i.EventsRole)
	return who, nil
}

// wanted returns a text about the roles that a token needs.
func (i *issuer) wanted() string {
	return fmt.Sprintf("its claim %s must have %s or %s in it", i.RoleClaim, i.ReadRole, i.WriteRole)
}

// rolesIn returns the roles in a claim: a list, or a text with spaces, OAuth's
// separator, and no other white space. The claim's name is a key (some are URLs), or
// else a path of keys with dots.
func rolesIn(claims map[string]any, claim string) []string {
	value, ok := claims[claim]
	if first, rest, nested := strings.Cut(claim, "."); !ok && nested {
		inner, _ := claims[first].(map[string]any)
		return rolesIn(inner, rest)
	}
	switch v := value.(type) {
	case string:
		return strings.Split(v, " ")
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
