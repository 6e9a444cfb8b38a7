package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthcheck(t *testing.T) {
	unready := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz":
			_, _ = w.Write([]byte("ok\n"))
		case unready:
			http.Error(w, "not ready: no broker\x1b[2J answers", http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte("ready\n"))
		}
	}))
	defer server.Close()
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	for _, tt := range []struct {
		args  string
		ready bool
		code  int
		says  string
	}{
		{"--set ops.listen=127.0.0.1:" + port, false, 0, "ok"},
		{"--set ops.listen=0.0.0.0:" + port, false, 0, "ok"},
		{"--ready --set ops.listen=:" + port, true, 0, "ready"},
		{"--ready --set ops.listen=127.0.0.1:" + port, false, exitFailed, `/readyz answered 503 Service Unavailable: not ready: no broker\u001b[2J answers`},
		{"--set ops.listen=127.0.0.1:1", false, exitFailed, "connection refused"},
		{"--set ops.listen=", false, exitFailed, "ops.listen is empty"},
		{"--set ops.listn=x", false, exitUsage, "did you mean ops.listen?"},
	} {
		unready = !tt.ready
		all, code := shell{t}.all("", append([]string{"healthcheck"}, strings.Fields(tt.args)...)...)
		if code != tt.code || !strings.Contains(all, tt.says) {
			t.Errorf("%s: %d %q, want %d %q", tt.args, code, all, tt.code, tt.says)
		}
	}
}
