package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"time"

	"twinegress/e2e/env"
	"twinegress/internal/emulator"
)

const identityToken = "the.managed.identity"

// identityServices take this token and no other.
func identityServices(c *emulator.Config) { c.AMQPTLS, c.BearerToken = true, identityToken }

// Endpoints without keys are sent to with this process's identity: here the
// managed identity as it is on App Service, asked for over HTTP. When it is
// taken away they back off, and when it comes back they go on.
func managedIdentity(h *harness) {
	services := []string{"eventhubs", "servicebus", "eventgrid"}
	var asked [3]atomic.Int32
	login := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resource := r.URL.Query().Get("resource")
		for i, service := range services {
			if strings.HasPrefix(resource, "https://"+service+".azure.net") && r.Header.Get("X-IDENTITY-HEADER") == "secret" {
				asked[i].Add(1)
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"expires_on":"%d","token_type":"Bearer","resource":%q}`,
			identityToken, time.Now().Add(time.Hour).Unix(), resource)
	}))
	h.T.Cleanup(login.Close)
	h.environment = []string{"IDENTITY_ENDPOINT=" + login.URL, "IDENTITY_HEADER=secret", "AZURE_TOKEN_CREDENTIALS=ManagedIdentityCredential"}

	var set []env.Endpoint
	for _, e := range h.everyType() {
		e = e.With("authentication", "identityBased").With("connectionString", "Endpoint=sb://"+h.Services.AMQPAddr()+"/")
		if e.Text("type") == "EventGrid" {
			delete(e, "connectionString")
		}
		delete(e, "secondaryConnectionString")
		set = append(set, e)
	}
	h.SetEndpoints(set...)
	settings := env.Settings{"endpoints.allowDevelopmentEmulator": "false", "endpoints.identityDomains": "127.0.0.1,localhost", "endpoints.hosts.allow": "127.0.0.0/8,::1"}
	r := h.run("one", settings)
	h.Produce(h.Events(2)...)
	for _, e := range r.settled(2).Endpoints {
		if e.Delivered != 2 || e.State != "ready" {
			h.T.Fatalf("%s: %d delivered, %s, %s", e.Type, e.Delivered, e.State, e.LastError)
		}
	}
	h.arrivedOnce(2, everywhere...)
	for i := range asked {
		if n := asked[i].Load(); n != 1 {
			h.T.Errorf("%s: %d tokens were asked for, want 1", services[i], n)
		}
	}
	var report struct {
		OK     bool
		Checks []struct{ What, Key string }
	}
	p, code := h.command(settings, "check", "--output", "json")
	unmarshal(h.T, p.out.String(), &report)
	if code != 0 || !report.OK || len(report.Checks) < 5 || !strings.Contains(fmt.Sprint(report.Checks), "identity") {
		h.T.Errorf("check: exit code %d, %+v", code, report)
	}

	h.SetFault(emulator.Fault{RejectKey: "identity"}, everywhere...)
	h.Produce(h.Events(1)...)
	for _, e := range r.settled(3).Endpoints {
		if e.Dropped["unauthorized"] != 1 || !strings.Contains(e.LastError, "this process's identity") || strings.Contains(e.LastError, identityToken) {
			h.T.Errorf("%s: dropped %v, last error %q", e.Type, e.Dropped, e.LastError)
		}
	}
	h.Repair(everywhere...)
	records := 3
	env.Eventually(h.T, "all deliver again", func() bool {
		h.Produce(h.Events(1)...)
		records++
		ready := 0
		for _, e := range r.settled(records).Endpoints {
			if e.State == "ready" {
				ready++
			}
		}
		return ready == 3
	})
}
