package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/endpoints"
	"twinegress/internal/emulator"
)

// Endpoints without keys are sent to with this process's identity: here the
// managed identity as it is on App Service, asked for over HTTP. When it is
// taken away they back off, and when it comes back they go on.
func TestManagedIdentity(t *testing.T) {
	const token = "the.managed.identity"
	var resources [3]atomic.Int32
	login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for i, service := range []string{"eventhubs", "servicebus", "eventgrid"} {
			if strings.HasPrefix(r.URL.Query().Get("resource"), "https://"+service+".azure.net") && r.Header.Get("X-IDENTITY-HEADER") == "secret" {
				resources[i].Add(1)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"expires_on":"%d","token_type":"Bearer","resource":%q}`,
			token, time.Now().Add(time.Hour).Unix(), r.URL.Query().Get("resource"))
	}))
	t.Cleanup(login.Close)
	t.Setenv("IDENTITY_ENDPOINT", login.URL)
	t.Setenv("IDENTITY_HEADER", "secret")
	t.Setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")

	w := newWorldFor(t, 1, emulator.Config{
		Hubs: []emulator.Hub{{Name: "hub", Partitions: 1}}, Topics: []emulator.Topic{{Name: "topic"}},
		EventGridTopics: []emulator.GridTopic{{Name: "grid"}},
		AMQPTLS:         true, BearerToken: token, TrackIDs: true,
	})
	set := []endpoints.Endpoint{w.hub("SensorChange"), w.topic("SensorChange"), w.grid("SensorChange")}
	for i := range set {
		set[i].Authentication = endpoints.AuthenticationIdentity
		set[i].ConnectionString, set[i].SecondaryConnectionString = "Endpoint=sb://"+w.services.AMQPAddr()+"/", ""
	}
	set[2].ConnectionString = ""
	cfg := w.config()
	cfg.Endpoints.AllowDevelopmentEmulator = false
	cfg.Endpoints.IdentityDomains = []string{"127.0.0.1", "localhost"}
	r := w.start(cfg, set...)
	if report := app.Check(t.Context(), cfg); !report.OK || len(report.Checks) != 5 || report.Checks[2].Key != "identity" {
		t.Errorf("check: %+v", report)
	}

	sample := value(samples(t)["SensorChange"])
	w.produce(sample, sample)
	r.settled(2)
	states := func() (text string) {
		for _, e := range r.Pipeline.Status().Endpoints {
			text += fmt.Sprintf("%s %s %d; ", e.Type, e.State, e.Delivered)
		}
		return text
	}
	for _, s := range r.Pipeline.Status().Endpoints {
		if s.Delivered != 2 || s.State != "ready" {
			t.Fatalf("%s: %d delivered, %s, %s", s.Type, s.Delivered, s.State, s.LastError)
		}
	}
	if n := w.services.Stats().Count(); n != 6 {
		t.Errorf("%d messages are stored, want 6", n)
	}
	for i := range resources {
		// None, if another run of this test in this process has asked: the SDK
		// keeps such tokens for all credentials.
		if n := resources[i].Load(); n > 1 {
			t.Errorf("service %d: %d tokens were asked for, want 1", i, n)
		}
	}

	for _, entity := range []string{"hub", "topic", "grid"} {
		if err := w.services.SetFault(entity, emulator.Fault{RejectKey: "identity"}); err != nil {
			t.Fatal(err)
		}
	}
	w.produce(sample)
	r.settled(3)
	for _, s := range r.Pipeline.Status().Endpoints {
		if s.Dropped["unauthorized"] != 1 || !strings.Contains(s.LastError, "this process's identity") || strings.Contains(s.LastError, token) {
			t.Errorf("%s: dropped %v, last error %q", s.Type, s.Dropped, s.LastError)
		}
	}
	for _, entity := range []string{"hub", "topic", "grid"} {
		if err := w.services.ClearFault(entity); err != nil {
			t.Fatal(err)
		}
	}
	records := 3
	eventually(t, "all deliver again", func() bool {
		w.produce(sample)
		records++
		r.settled(records)
		return strings.Count(states(), " ready ") == 3
	})
}
