package api

import (
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"go.uber.org/zap"

	"twinegress/endpoints/storetest"
	"twinegress/sinks"
)

func TestAuthentication(t *testing.T) {
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	r := newEnv(t)
	for name, tt := range map[string]struct {
		authorization string
		status        int
		challenge     string
	}{
		"the token":            {"Bearer " + writer, 200, ""},
		"scheme in lower case": {"bearer " + writer, 200, ""},
		"no token":             {"", 401, "Bearer Basic"},
		"empty":                {"Bearer ", 401, "Bearer Basic"},
		"another token":        {"Bearer T" + writer[1:], 401, "Bearer"},
		"the hash is no token": {"Bearer " + hash(writer), 401, "Bearer"},
		"another scheme":       {"Digest " + writer, 401, "Bearer Basic"},
		"as a browser does":    {basic("me:" + writer), 200, ""},
		"with no name":         {basic(":" + writer), 200, ""},
		"as the name":          {basic(writer + ":"), 401, "Bearer Basic"},
		"a browser, mistyped":  {basic("me:nope"), 401, "Bearer Basic"},
		"no base64":            {"Basic " + writer, 401, "Bearer Basic"},
	} {
		t.Run(name, func(t *testing.T) {
			header := map[string]string{"Authorization": tt.authorization}
			w := r.do(call{method: "GET", path: Base + "/status", token: "-", header: header})
			var schemes []string
			for _, c := range w.Header().Values("WWW-Authenticate") {
				schemes = append(schemes, strings.Fields(c)[0])
			}
			if got := strings.Join(schemes, " "); w.Code != tt.status || got != tt.challenge {
				t.Errorf("%d, challenges %q, want %d, %q: %s", w.Code, got, tt.status, tt.challenge, w.Body)
			}
		})
	}
}

// Refused tokens from one network are limited; other networks are not affected, and
// neither is who has shown a right token from there lately.
func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newEnv(t)
		from := func(address, token string) *httptest.ResponseRecorder {
			return r.do(call{method: "GET", path: Base + "/status", token: token, from: address})
		}
		const bad, good = "[2001:db8::1]:1000", "[2001:db8:0:1::1]:1000"
		for range 100 {
			from(bad, "-") // is no guess
		}
		if w := from(bad, reader); w.Code != 200 {
			t.Fatalf("a right one: %d", w.Code)
		}
		for i := range guessBurst {
			if w := from(bad, "guess "+strconv.Itoa(i)); w.Code != 401 {
				t.Fatalf("guess %d: %d", i, w.Code)
			}
		}
		w := from("[2001:db8::2]:99", "guess")
		if w.Code != 429 || w.Header().Get("Retry-After") != "1" || w.Header().Get("Connection") != "close" {
			t.Errorf("one more, from the same network: %d, %v", w.Code, w.Header())
		}
		if n := r.logs.FilterLevelExact(zap.WarnLevel).Len(); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
		if w := from(bad, writer); w.Code != 429 {
			t.Errorf("a right one that wasn't shown from there is not told apart: %d", w.Code)
		}
		for range 100 {
			if w := from("[2001:db8::3]:1", reader); w.Code != 200 {
				t.Fatalf("the one that was shown from there: %d", w.Code)
			}
		}
		if w := from(good, writer); w.Code != 200 {
			t.Errorf("from elsewhere: %d", w.Code)
		}
		time.Sleep(time.Second)
		if w := from(bad, writer); w.Code != 200 {
			t.Errorf("a second later: %d", w.Code)
		}
		time.Sleep(shownFor)
		for range guessBurst {
			from(bad, "guess")
		}
		if w := from(bad, reader); w.Code != 429 {
			t.Errorf("the one that was shown an hour ago: %d", w.Code)
		}
	})
}

// A token that was right and is refused now, since it expired, is a guess like any
// other; one without a role is none that gives access.
func TestTokensThatWereRight(t *testing.T) {
	p := newIdentityProvider(t)
	r := p.env()
	get := func(token string) int {
		return r.do(call{method: "GET", path: Base + "/status", token: token}).Code
	}
	guess := func() {
		for range guessBurst {
			get("guess")
		}
	}
	noRole, good := p.token(map[string]any{"roles": nil}), p.token(nil)
	if first, second := get(noRole), get(good); first != 403 || second != 200 {
		t.Fatal(first, second)
	}
	guess()
	if first, second := get(noRole), get(good); first != 429 || second != 200 {
		t.Errorf("%d without a role, %d with one", first, second)
	}
	key := p.rotate("two") // and with it the token is refused: see TestOIDCKeysAreCachedAndRotate
	r.do(call{method: "GET", path: Base + "/status", token: sign(t, oidc.RS256, key, "two", p.claims(nil)), from: "192.0.2.77:1"})
	for deadline := time.Now().Add(10 * time.Second); get(good) != 429; {
		if time.Now().After(deadline) {
			t.Fatal("a refused token is looked at without a limit")
		}
	}
}

// Each caller has a rate limit of its own.
func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newEnv(t, func(o *Options) { o.Config.RateLimit = 100 })
		get := func(token string) *httptest.ResponseRecorder {
			return r.do(call{method: "GET", path: Base + "/status", token: token})
		}
		for i := range 100 {
			if w := get(""); w.Code != 200 {
				t.Fatalf("request %d: %d", i, w.Code)
			}
		}
		if w := get(""); w.Code != 429 || !strings.Contains(w.Body.String(), "100 a second are allowed to ops") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w := get(reader); w.Code != 200 {
			t.Errorf("the other token: %d", w.Code)
		}
		time.Sleep(10 * time.Millisecond)
		if w := get(""); w.Code != 200 {
			t.Errorf("later: %d", w.Code)
		}
	})
}

// However many keys there are, few are remembered, and the busy ones stay.
func TestLimitersAreBounded(t *testing.T) {
	l := newLimiters[int](1, 2)
	busy := l.of(-1)
	busy.AllowN(time.Now(), 2)
	for i := range 10 * generation {
		l.of(i)
		if i%100 == 0 && l.of(-1) != busy {
			t.Fatalf("the busy one is forgotten after %d others", i)
		}
	}
	if n := len(l.recent.now) + len(l.recent.old); n > 2*generation {
		t.Errorf("%d are remembered", n)
	}
}

type panicking struct{ Pipeline }

func (panicking) Health(string) (sinks.Health, bool) { panic(errors.New("BUG: it panics")) }

// A panic is a 500 that names the request, and a line in the log.
func TestPanic(t *testing.T) {
	r := newEnv(t, func(o *Options) { o.Pipeline = panicking{o.Pipeline} })
	w := r.do(call{method: "GET", path: Base + "/endpoints"})
	lines := r.logs.FilterLevelExact(zap.ErrorLevel).All()
	if w.Code != 500 || strings.Contains(w.Body.String(), "BUG") || len(lines) != 1 {
		t.Fatalf("%d %s, %d lines", w.Code, w.Body, len(lines))
	}
	if id := w.Header().Get(requestIDHeader); lines[0].ContextMap()["requestId"] != id {
		t.Errorf("request id %s, log %v", id, lines[0].ContextMap())
	}
}

// The page and all that it loads comes from here, for who has a token.
func TestDocs(t *testing.T) {
	r := newEnv(t)
	for path, want := range map[string]struct{ kind, has string }{
		"/docs":                         {"text/html; charset=utf-8", "docs/swagger-ui-bundle.js"},
		"/docs/start.js":                {"text/javascript; charset=utf-8", "SwaggerUIBundle("},
		"/docs/swagger-ui-bundle.js":    {"text/javascript; charset=utf-8", "SwaggerUIBundle"},
		"/docs/swagger-ui.css":          {"text/css; charset=utf-8", ".swagger-ui"},
		"/docs/swagger-ui-licences.txt": {"text/plain; charset=utf-8", "MIT"},
		"/openapi.json":                 {"application/json", `"openapi": "3.1.0"`},
		"/openapi.yaml":                 {"application/yaml", "openapi: 3.1.0"},
	} {
		for _, encoding := range []string{"", "gzip"} {
			w := r.do(call{method: "GET", path: path, header: map[string]string{"Accept-Encoding": encoding}})
			body := w.Body.String()
			if w.Header().Get("Content-Encoding") == "gzip" {
				unzipped, err := gzip.NewReader(strings.NewReader(body))
				storetest.Must(t, err)
				text, err := io.ReadAll(unzipped)
				storetest.Must(t, err)
				body = string(text)
			}
			if w.Code != 200 || w.Header().Get("Content-Type") != want.kind || !strings.Contains(body, want.has) {
				t.Errorf("%s: %d, %s, %d bytes", path, w.Code, w.Header().Get("Content-Type"), len(body))
			}
			if strings.HasPrefix(path, "/docs") && !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
				t.Errorf("%s has no policy", path)
			}
			if strings.HasPrefix(path, "/docs") && strings.HasSuffix(want.kind, "html; charset=utf-8") && strings.Contains(body, "http") {
				t.Errorf("%s loads from elsewhere: %s", path, body)
			}
		}
	}
	// With a slash at the end its relative links would lead elsewhere.
	if w := r.do(call{method: "GET", path: "/docs/"}); w.Code != 308 || w.Header().Get("Location") != "../docs" {
		t.Errorf("/docs/: %d to %s", w.Code, w.Header().Get("Location"))
	}
}
