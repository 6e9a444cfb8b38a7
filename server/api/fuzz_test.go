package api

import (
	"encoding/json"
	"math"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"twinegress/internal/config"
)

// FuzzQuery holds, of any query of a list: a list or a short reply, and a link that
// is a query of a list again.
func FuzzQuery(f *testing.F) {
	for _, query := range []string{
		"", "types=EventHub,eventgrid&eventTypes=UdfCustom", "$top=1&$skip=0", "$TOP=1&types=EventHub&types=EventHub", "timeUpdated=2020-01-01 10:00",
		"types=x&eventTypes=y&z=1&$top=-1&$skip=9999999999999999999", "a;b", "%zz", "$top=1&timeUpdated=0001-01-01T00:00:00.5%2b10:00", "$top=\x00&\xff",
		strings.Repeat("x&", 100),
	} {
		f.Add(query)
	}
	r := newEnv(f, func(o *Options) { o.Config.RateLimit = math.MaxInt32 })
	get := func(query string) *httptest.ResponseRecorder {
		request := httptest.NewRequest("GET", Base+"/endpoints", nil)
		request.URL.RawQuery = query
		request.Header.Set("Authorization", "Bearer "+reader)
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, request)
		return w
	}
	f.Fuzz(func(t *testing.T, query string) {
		r.t = t
		defer r.logs.TakeAll()
		w := get(query)
		r.check(w)
		if w.Code != 200 && w.Code != 400 || w.Body.Len() > maxReply {
			t.Fatalf("%d, %d bytes", w.Code, w.Body.Len())
		}
		link := strings.TrimSuffix(strings.TrimPrefix(w.Header().Get("Link"), "<"), `>; rel="next"`)
		if link == "" {
			return
		}
		next, err := url.Parse(link)
		if err != nil || len(link) > 1000 || get(next.RawQuery).Code != 200 {
			t.Fatalf("the next page is %s, %v", link, err)
		}
	})
}

// FuzzAdmit holds: nothing but a right token is let in, whatever else a request has,
// and a refusal is short.
func FuzzAdmit(f *testing.F) {
	for _, header := range []struct{ authorization, name, value string }{
		{"Bearer " + hash(writer), "X-Forwarded-For", "127.0.0.1"},
		{"Basic Og==", "Cookie", "token=x"},
		{"bearer  ", "X-HTTP-Method-Override", "GET"},
		{"Bearer a.b.c", "Origin", "https://evil.example"},
		{"Bearer eyJhbGciOiJub25lIn0.e30.", "Sec-Fetch-Site", "none"},
		{"", "Host", "\x00"},
		{"Basic \xff", "Forwarded", "for=x"},
		{"Bearer\t" + strings.Repeat("x.", 100), "Authorization", "Bearer x"},
	} {
		f.Add(header.authorization, header.name, header.value, "192.0.2.1:80")
	}
	p := &config.OIDC{Issuer: "http://127.0.0.1:1", Audience: "a", RoleClaim: "roles", ReadRole: "r", WriteRole: "w"}
	r := newEnv(f, func(o *Options) { o.Config.OIDC = *p })
	f.Fuzz(func(t *testing.T, authorization, name, value, from string) {
		r.t = t
		defer r.logs.TakeAll()
		request := httptest.NewRequest("POST", "/endpoints", strings.NewReader(newHub))
		request.RemoteAddr = from
		request.Header["Authorization"] = []string{authorization}
		if name != "Authorization" {
			request.Header[name] = []string{value}
		} else {
			request.Header.Add(name, value)
		}
		if token, _ := credentials(request); token == writer || token == reader {
			return
		}
		// What was tried before is forgotten, so that this one is looked at.
		r.handler.(*handler).guesses = newLimiters[netip.Prefix](guessRate, guessBurst)
		before := len(r.store.Current())
		w := httptest.NewRecorder()
		r.handler.ServeHTTP(w, request)
		r.check(w)
		if w.Code != 401 && w.Code != 429 && w.Code != 503 || w.Body.Len() > 4<<10 || len(r.store.Current()) != before {
			t.Fatalf("%d, %d bytes: %s", w.Code, w.Body.Len(), w.Body)
		}
		for _, header := range w.Header() {
			if strings.ContainsAny(strings.Join(header, ""), "\r\n\x00") {
				t.Fatalf("%q", header)
			}
		}
	})
}

// FuzzRoles holds: a role is a whole text of a list in the claim, or a word of a text
// there, between spaces.
func FuzzRoles(f *testing.F) {
	for _, claims := range []string{
		`{"roles":["r","w"]}`, `{"roles":"r w"}`, `{"roles":"r\u00a0w"}`, `{"roles":{"w":"w"}}`, `{"roles":[["w"],null,true,{"w":1}]}`, `{"a":{"roles":"w"}}`,
		`{"a.roles":["w"],"a":{"roles":"r"}}`, `{"roles":null}`, `{"roles":" w "}`, `{"":{"":"w"}}`,
	} {
		f.Add(claims, "roles")
		f.Add(claims, "a.roles")
		f.Add(claims, ".")
	}
	f.Fuzz(func(t *testing.T, text, claim string) {
		var claims map[string]any
		if json.Unmarshal([]byte(text), &claims) != nil {
			return
		}
		for _, role := range rolesIn(claims, claim) {
			if !isRole(claims, role) {
				t.Fatalf("%q is no role in %s", role, text)
			}
		}
	})
}

// isRole reports whether a role is anywhere in v.
func isRole(v any, role string) bool {
	switch v := v.(type) {
	case string:
		return v == role || slices.Contains(strings.Split(v, " "), role)
	case []any:
		return slices.ContainsFunc(v, func(one any) bool { return one == any(role) })
	case map[string]any:
		for _, one := range v {
			if isRole(one, role) {
				return true
			}
		}
	}
	return false
}
