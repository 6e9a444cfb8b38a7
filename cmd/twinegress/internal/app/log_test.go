package app

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"
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

// What a broker says, as anybody else, is escaped and cut in the log.
func TestWordsOfABrokerInTheLog(t *testing.T) {
	k, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "user", "pass"))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	k.ControlKey(kmsg.SASLAuthenticate.Int16(), func(request kmsg.Request) (kmsg.Response, error, bool) {
		k.KeepControl()
		words := "refused\n\u009b2J\u202e" + strings.Repeat("x", 1<<20)
		response := request.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		response.ErrorCode, response.ErrorMessage = kerr.SaslAuthenticationFailed.Code, &words
		return response, nil, true
	})
	var out bytes.Buffer
	log, err := NewLogger(LogOptions{Level: "info"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(k.ListenAddrs()...), kgo.SASL(plain.Auth{User: "user", Pass: "pass"}.AsMechanism()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	said := client.Ping(t.Context())
	if said == nil || len(said.Error()) < 1<<20 {
		t.Fatalf("the broker says %.100v", said)
	}
	log.Error("it failed", zap.Error(said))
	log.With(zap.Error(said)).Error("again")
	if n := strings.Count(out.String(), `refused \\u009b2J\\u202exxx`); n != 2 || out.Len() > 3000 {
		t.Errorf("%d times in %d bytes: %.300s", n, out.Len(), &out)
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
