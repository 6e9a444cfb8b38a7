package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/eventually"
	"twinegress/server/api"
)

// Audit lines are logged at every level.
func TestAuditIsLoggedAtEachLevel(t *testing.T) {
	for _, level := range []string{"info", "warn", "error"} {
		core, logs := observer.New(zap.InfoLevel)
		at, err := zap.ParseAtomicLevel(level)
		if err != nil {
			t.Fatal(err)
		}
		log := zap.New(leveled{core, at.Level()}).With(zap.Int("x", 1))
		log.Info("started")
		log.Error("failed")
		log.Named("api").Named(api.AuditLog).With(zap.Int("y", 2)).Info("changed")
		want := 2
		if level == "info" {
			want = 3
		}
		if got := logs.FilterMessage("changed").All(); logs.Len() != want || len(got) != 1 || len(got[0].Context) != 2 {
			t.Errorf("%s: %v, want %d lines, one of them %q with both fields", level, logs.All(), want, "changed")
		}
	}
}

// An answer that nobody asked for is logged without its bytes.
func TestStandardLogQuotesNobody(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	defer RedirectStandardLog(zap.New(core))()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nthe key")
	}))
	defer server.Close()
	client := server.Client()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	eventually.Holds(t, "net/http says so", func() bool { return logs.Len() > 0 })
	for _, entry := range logs.All() {
		if !strings.HasPrefix(entry.Message, "Unsolicited response") || strings.Contains(entry.Message, "key") {
			t.Errorf("logged is %q", entry.Message)
		}
	}
}
