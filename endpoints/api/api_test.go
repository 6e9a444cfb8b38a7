package api

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestStatusWantsAToken(t *testing.T) {
	sum := sha256.Sum256([]byte("secret"))
	type state struct {
		Routed int `json:"routed"`
	}
	h := New("v1", []Token{{Name: "ops", SHA256: strings.ToUpper(hex.EncodeToString(sum[:]))}}, func() state { return state{7} })
	tests := map[string]struct {
		path, authorization string
		status              int
		body                string
	}{
		"the token":            {Base + "/status", "Bearer secret", 200, `{"routed":7}`},
		"scheme in lower case": {Base + "/status", "bearer secret", 200, `{"routed":7}`},
		"no token":             {Base + "/status", "", 401, `{"error":{"code":"Unauthorized","message":"a bearer token of api.tokens is required"}}`},
		"another token":        {Base + "/status", "Bearer Secret", 401, ""},
		"the hash is no token": {Base + "/status", "Bearer " + hex.EncodeToString(sum[:]), 401, ""},
		"basic":                {Base + "/status", "Basic secret", 401, ""},
		"unknown without":      {"/nope", "", 401, ""},
		"openapi without":      {"/openapi.json", "", 401, ""},
		"unknown":              {"/nope", "Bearer secret", 404, `{"error":{"code":"NotFound","message":"GET /nope is no operation of this API"}}`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, tt.path, nil)
			if tt.authorization != "" {
				r.Header.Set("Authorization", tt.authorization)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.status {
				t.Errorf("%d, want %d: %s", w.Code, tt.status, w.Body)
			}
			if got := strings.TrimSpace(w.Body.String()); tt.body != "" && got != tt.body {
				t.Errorf("body %s, want %s", got, tt.body)
			}
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("not JSON: %s", w.Body)
			}
			if challenge := w.Header().Get("WWW-Authenticate"); (w.Code == 401) != (challenge != "") {
				t.Errorf("status %d with WWW-Authenticate %q", w.Code, challenge)
			}
		})
	}
}
