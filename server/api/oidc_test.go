package api

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/coreos/go-oidc/v3/oidc/oidctest"

	"twinegress/endpoints/storetest"
	"twinegress/internal/config"
)

const (
	discoveryPath = "/.well-known/openid-configuration"
	keysPath      = "/keys"
)

// identityProvider is an OpenID Connect issuer of which a part may fail.
type identityProvider struct {
	t   *testing.T
	url string
	key *rsa.PrivateKey

	mu       sync.Mutex
	server   oidctest.Server
	down     string         // a path that answers 500
	endless  string         // a path whose answer has no end, up to 256 MiB
	encoding string         // of that
	header   int            // bytes of a header of each answer
	written  int            // of that
	requests map[string]int // by path
}

func newIdentityProvider(t *testing.T) *identityProvider {
	t.Helper()
	p := &identityProvider{t: t, requests: make(map[string]int)}
	// HS256 among them: an issuer may use it with secrets of its own.
	p.server.Algorithms = []string{"RS256", "ES256", "HS256", "none"}
	p.key = p.rotate("one")
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.url = server.URL
	p.server.SetIssuer(p.url)
	return p
}

func (p *identityProvider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests[r.URL.Path]++
	if p.header > 0 {
		w.Header().Set("X-Padding", strings.Repeat("x", p.header))
	}
	if p.down == r.URL.Path {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if p.endless == r.URL.Path {
		if p.encoding != "" {
			w.Header().Set("Content-Encoding", p.encoding)
		}
		spaces := bytes.Repeat([]byte(" "), 64<<10)
		for p.written < 256<<20 {
			n, err := w.Write(spaces)
			p.written += n
			if err != nil {
				return
			}
		}
		return
	}
	p.server.ServeHTTP(w, r)
}

// asked returns how many requests there were for a path.
func (p *identityProvider) asked(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[path]
}

func (p *identityProvider) fail(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = path
}

// rotate replaces the issuer's keys by one new one.
func (p *identityProvider) rotate(id string) *rsa.PrivateKey {
	p.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	storetest.Must(p.t, err)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server.PublicKeys = []oidctest.PublicKey{{PublicKey: key.Public(), KeyID: id, Algorithm: oidc.RS256}}
	return key
}

// claims are those of a token that may write; change says what is different.
func (p *identityProvider) claims(change map[string]any) map[string]any {
	claims := map[string]any{
		"iss": p.url, "aud": []string{"other", "twinegress"}, "sub": "7d3e", "exp": time.Now().Add(time.Hour).Unix(),
		"iat": time.Now().Unix(), "roles": []string{"twinegress.write"},
	}
	for name, value := range change {
		claims[name] = value
		if value == nil {
			delete(claims, name)
		}
	}
	return claims
}

func sign(t *testing.T, alg string, key any, id string, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	storetest.Must(t, err)
	return oidctest.SignIDToken(key, id, alg, string(payload))
}

func (p *identityProvider) token(change map[string]any) string {
	p.t.Helper()
	return sign(p.t, oidc.RS256, p.key, "one", p.claims(change))
}

func (p *identityProvider) env(change ...func(*Options)) *env {
	p.t.Helper()
	return newEnv(p.t, append([]func(*Options){func(o *Options) {
		o.Config.OIDC = config.OIDC{Issuer: p.url, Audience: "twinegress", RoleClaim: "roles", ReadRole: "twinegress.read", WriteRole: "twinegress.write", EventsRole: "twinegress.events"}
	}}, change...)...)
}

func TestOIDC(t *testing.T) {
	p := newIdentityProvider(t)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	storetest.Must(t, err)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	storetest.Must(t, err)
	good := p.token(nil)
	parts := strings.Split(good, ".")
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + "."
	// The issuer's public key, which everybody has, as the secret of an HMAC.
	der, err := x509.MarshalPKIXPublicKey(&p.key.PublicKey)
	storetest.Must(t, err)
	confused := sign(t, "HS256", der, "one", p.claims(nil))
	forged := parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"roles":["twinegress.write"]}`)) + "." + parts[2]

	for name, tt := range map[string]struct {
		token     string
		get, post int
		says      string
	}{
		"write":                    {good, 200, 201, ""},
		"read":                     {p.token(map[string]any{"roles": []string{"x", "twinegress.read"}}), 200, 403, "may read and not change"},
		"role as text":             {p.token(map[string]any{"roles": "x twinegress.write"}), 200, 201, ""},
		"one audience":             {p.token(map[string]any{"aud": "twinegress"}), 200, 201, ""},
		"no role":                  {p.token(map[string]any{"roles": nil}), 403, 403, "claim roles must have twinegress.read or twinegress.write"},
		"another role":             {p.token(map[string]any{"roles": []any{"admin", 5}}), 403, 403, "gives no role"},
		"expired":                  {p.token(map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), 401, 401, "expired at"},
		"no expiry":                {p.token(map[string]any{"exp": nil}), 401, 401, "expired at"},
		"not yet":                  {p.token(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), 401, 401, "before the nbf"},
		"wrong audience":           {p.token(map[string]any{"aud": "other"}), 401, 401, "expected audience"},
		"no audience":              {p.token(map[string]any{"aud": nil}), 401, 401, "expected audience"},
		"wrong issuer":             {p.token(map[string]any{"iss": "https://evil.example.com"}), 401, 401, "different provider"},
		"alg none":                 {unsigned, 401, 401, "the token is refused"},
		"HS256 confusion":          {confused, 401, 401, "the token is refused"},
		"claims changed":           {forged, 401, 401, "failed to verify"},
		"another's key":            {sign(t, oidc.RS256, other, "one", p.claims(nil)), 401, 401, "failed to verify"},
		"unknown key":              {sign(t, oidc.RS256, other, "two", p.claims(nil)), 401, 401, "failed to verify"},
		"another kind of key":      {sign(t, oidc.ES256, ec, "one", p.claims(nil)), 401, 401, "failed to verify"},
		"no JWT":                   {"a.b.c", 401, 401, "the token is refused"},
		"roles with another space": {p.token(map[string]any{"roles": "twinegress.write\u00a0x"}), 403, 403, "gives no role"},
		"roles with a tab":         {p.token(map[string]any{"roles": "twinegress.write\tx"}), 403, 403, "gives no role"},
		"one of ours":              {writer, 200, 201, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := p.env()
			r.t = t
			get := r.do(call{method: "GET", path: Base + "/endpoints", token: tt.token})
			post := r.do(call{method: "POST", path: "/endpoints", body: newHub, token: tt.token})
			if get.Code != tt.get || post.Code != tt.post {
				t.Errorf("GET %d, POST %d, want %d, %d: %s", get.Code, post.Code, tt.get, tt.post, post.Body)
			}
			if !strings.Contains(post.Body.String(), tt.says) || strings.Contains(post.Body.String(), tt.token) {
				t.Errorf("%s, want %q", post.Body, tt.says)
			}
			if challenge := post.Header().Get("WWW-Authenticate"); tt.post == 401 && !strings.Contains(challenge, `error="invalid_token"`) {
				t.Errorf("WWW-Authenticate %q", challenge)
			}
		})
	}
}

// Who an issuer's token is from is in the log; roles may be inside objects.
func TestOIDCNamesAndNestedRoles(t *testing.T) {
	p := newIdentityProvider(t)
	r := p.env(func(o *Options) { o.Config.OIDC.RoleClaim = "realm_access.roles" })
	token := p.token(map[string]any{
		"preferred_username": "ann\n" + strings.Repeat("x", 200), "realm_access": map[string]any{"roles": []string{"twinegress.write"}},
	})
	if w := r.do(call{method: "POST", path: "/endpoints", body: newHub, token: token}); w.Code != 201 {
		t.Fatal(w.Body)
	}
	who, _ := r.logs.FilterMessage("endpoint created").All()[0].ContextMap()["who"].(string)
	if want := `oidc:7d3e (ann\u000a` + strings.Repeat("x", 119) + "…)"; who != want {
		t.Errorf("who %q, want %q", who, want)
	}
	if got := rolesIn(map[string]any{"https://a.b/roles": []any{"x"}}, "https://a.b/roles"); len(got) != 1 {
		t.Errorf("a claim with dots in its name: %q", got)
	}
	if got := rolesIn(map[string]any{"a": "b"}, "a.b.c"); len(got) != 0 {
		t.Errorf("a way that leads nowhere: %q", got)
	}
}

// Keys are asked for once, and again when a token comes that another key signed.
func TestOIDCKeysAreCachedAndRotate(t *testing.T) {
	p := newIdentityProvider(t)
	r := p.env()
	get := func(token string) int {
		return r.do(call{method: "GET", path: Base + "/status", token: token}).Code
	}
	if p.asked(discoveryPath) != 0 {
		t.Error("the issuer was asked before there was a token")
	}
	old := p.token(nil)
	for range 5 {
		if code := get(old); code != 200 {
			t.Fatal(code)
		}
	}
	if p.asked(keysPath) != 1 || p.asked(discoveryPath) != 1 {
		t.Errorf("%d fetches of the keys, %d discoveries", p.asked(keysPath), p.asked(discoveryPath))
	}
	p.key = p.rotate("two")
	if code := get(sign(t, oidc.RS256, p.key, "two", p.claims(nil))); code != 200 {
		t.Errorf("the new key: %d", code)
	}
	// The library takes the new keys over a moment after it has used them.
	deadline := time.After(10 * time.Second)
	for get(old) != 401 {
		select {
		case <-deadline:
			t.Fatal("the old key still signs, though the new one is known")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// A key that the issuer gave up signs no longer than refreshAfter, also if no
// token comes that would make us look for a new one.
func TestOIDCForgetsOldKeys(t *testing.T) {
	p := newIdentityProvider(t)
	i := newIssuer(p.env().options.Config.OIDC, p.env().options.Log)
	now := time.Now()
	i.now = func() time.Time { return now }
	token := p.token(map[string]any{"exp": now.Add(100 * time.Hour).Unix()})
	check := func() error {
		_, err := i.authenticate(context.Background(), token)
		return err
	}
	storetest.Must(t, check())
	p.rotate("two")
	now = now.Add(refreshAfter - time.Minute)
	if err := check(); err != nil {
		t.Errorf("cached: %v", err)
	}
	// An issuer that can't be reached then locks no caller out.
	p.fail(discoveryPath)
	now = now.Add(2 * time.Minute)
	if err := check(); err != nil {
		t.Errorf("while the issuer is down: %v", err)
	}
	p.fail("")
	now = now.Add(retryAfter)
	if err := check(); err == nil {
		t.Error("the key that was given up still signs")
	}
}

// An issuer that can't be reached is distinguished from a bad token, and is
// asked again; our own tokens work meanwhile.
func TestOIDCUnreachable(t *testing.T) {
	p := newIdentityProvider(t)
	p.fail(discoveryPath)
	r := p.env()
	get := func(token string) *httptest.ResponseRecorder {
		return r.do(call{method: "GET", path: Base + "/status", token: token})
	}
	for range guessBurst + 5 { // no guesses, these
		if w := get(p.token(nil)); w.Code != 503 || !strings.Contains(w.Body.String(), p.url) {
			t.Fatalf("discovery: %d %s", w.Code, w.Body)
		}
	}
	if n := p.asked(discoveryPath); n != 1 {
		t.Errorf("%d discoveries within %v", n, retryAfter)
	}
	if w := get(""); w.Code != 200 {
		t.Errorf("our own token: %d", w.Code)
	}
	p.fail(keysPath)
	r = p.env()
	for range guessBurst + 5 {
		if w := get(p.token(nil)); w.Code != 503 {
			t.Fatalf("keys: %d %s", w.Code, w.Body)
		}
	}
	if n := r.logs.FilterMessageSnippet("keys of api.oidc's issuer").Len(); n != 1 {
		t.Errorf("%d lines, want 1 in %v", n, retryAfter)
	}
	p.fail("")
	if w := get(p.token(nil)); w.Code != 200 {
		t.Errorf("back: %d %s", w.Code, w.Body)
	}
}

// What a token says decides nothing: one that says what the library says of an issuer
// without keys is a guess like any other.
func TestOIDCWordsOfATokenDecideNothing(t *testing.T) {
	p := newIdentityProvider(t)
	encode := base64.RawURLEncoding.EncodeToString
	for _, words := range []string{"fetching keys", noKeys, "oidc: " + noKeys, noKeys + strings.Repeat("x", 30<<10), "\x1b[2J"} {
		text, err := json.Marshal(words)
		storetest.Must(t, err)
		for name, header := range map[string]string{
			"alg": `{"alg":` + string(text) + `}`, "kid": `{"alg":"RS256","kid":` + string(text) + `}`,
			"typ": `{"alg":"RS256","typ":` + string(text) + `}`, "crit": `{"alg":"RS256","crit":[` + string(text) + `]}`, "header": words,
		} {
			r := p.env()
			r.do(call{method: "GET", path: Base + "/status", token: p.token(nil)}) // the keys are known
			token := encode([]byte(header)) + "." + encode(text) + "." + encode([]byte("x"))
			guesses := 0
			for ; guesses < 5*guessBurst; guesses++ { // one more each second is allowed
				w := r.do(call{method: "GET", path: Base + "/status", token: token})
				if w.Code == 429 {
					break
				}
				if w.Code != 401 || w.Body.Len() > 4<<10 || strings.Contains(w.Body.String(), "\x1b") {
					t.Errorf("%s: %.20q: %d, %d bytes: %.200s", name, words, w.Code, w.Body.Len(), w.Body)
				}
			}
			if guesses < guessBurst || guesses == 5*guessBurst {
				t.Errorf("%s: %.20q: %d guesses", name, words, guesses)
			}
			for _, line := range r.logs.FilterMessageSnippet("issuer").All() {
				t.Errorf("%s: %.20q: the log says %s", name, words, line.Message)
			}
		}
	}
}

// Of an issuer's reply no more is read than a reply can have.
func TestOIDCRepliesAreBounded(t *testing.T) {
	for _, path := range []string{discoveryPath, keysPath} {
		for kind, header := range map[string]string{"plain": "", "packed": "gzip"} {
			p := newIdentityProvider(t)
			p.endless, p.encoding = path, header
			r := p.env()
			w := r.do(call{method: "GET", path: Base + "/status", token: p.token(nil)})
			if w.Code != 503 {
				t.Errorf("%s, %s: %d %s", path, kind, w.Code, w.Body)
			}
			p.mu.Lock()
			// What the sockets hold was written, and not read.
			if p.written < maxIssuerReply || p.written > maxIssuerReply+16<<20 {
				t.Errorf("%s, %s: %d bytes were written", path, kind, p.written)
			}
			p.mu.Unlock()
		}
	}
}

func TestOIDCHeadersAreBounded(t *testing.T) {
	for size, code := range map[int]int{maxIssuerHead / 2: http.StatusOK, 2 * maxIssuerHead: http.StatusServiceUnavailable} {
		p := newIdentityProvider(t)
		p.header = size
		if w := p.env().do(call{method: "GET", path: Base + "/status", token: p.token(nil)}); w.Code != code {
			t.Errorf("headers of %d bytes: %d %s", size, w.Code, w.Body)
		}
	}
}

func TestBoundedBody(t *testing.T) {
	for size, ok := range map[int]bool{0: true, maxIssuerReply - 1: true, maxIssuerReply: true, maxIssuerReply + 1: false, 3 * maxIssuerReply: false} {
		body := &boundedBody{io.NopCloser(strings.NewReader(strings.Repeat("x", size))), maxIssuerReply}
		if b, err := io.ReadAll(body); (err == nil) != ok || ok && len(b) != size || len(b) > maxIssuerReply {
			t.Errorf("%d: %d bytes, %v", size, len(b), err)
		}
	}
}
