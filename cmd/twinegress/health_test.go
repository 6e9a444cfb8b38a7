package main

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/e2e/env"
	"twinegress/endpoints/storetest"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/pipeline"
)

// lost are the ways in which Kafka is lost.
var lost = map[string]func(*emulator.Network){
	"gone":   (*emulator.Network).Cut,
	"frozen": (*emulator.Network).Freeze,
}

// get returns the status and the body of a reply.
func (r *running) get(url string) (int, string) {
	r.env.T.Helper()
	request, err := http.NewRequestWithContext(r.env.Context(), http.MethodGet, url, nil)
	r.env.Must(err)
	request.Header.Set("Authorization", "Bearer "+env.Token)
	response, err := http.DefaultClient.Do(request)
	r.env.Must(err)
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	r.env.Must(err)
	return response.StatusCode, string(body)
}

// status is the API's.
func (r *running) status() (st pipeline.Status) {
	r.env.T.Helper()
	code, body := r.get("http://" + r.APIAddress() + "/management/api/v1.0/status")
	if code != http.StatusOK {
		r.env.T.Fatalf("status: %d %s", code, body)
	}
	r.env.Must(json.Unmarshal([]byte(body), &st))
	return st
}

// unready blocks until the program says on every surface that it isn't ready, and why.
func (r *running) unready(why string) {
	r.env.T.Helper()
	env.Eventually(r.env.T, "it isn't ready: "+why, func() bool {
		code, body := r.get("http://" + r.OpsAddress() + "/readyz")
		return code == http.StatusServiceUnavailable && strings.Contains(body, why)
	})
	if code, _ := r.get("http://" + r.OpsAddress() + "/healthz"); code != http.StatusOK {
		r.env.T.Errorf("/healthz: %d", code)
	}
	if st := r.status(); st.Ready || !strings.Contains(strings.Join(st.NotReady, "\n"), why) || st.Ingest.Lag != nil {
		r.env.T.Errorf("the status says %+v", st)
	}
	_, metrics := r.get("http://" + r.OpsAddress() + "/metrics")
	if !strings.Contains(metrics, "\ntwinegress_ready 0\n") || strings.Contains(metrics, "twinegress_ingest_lag_records") {
		r.env.T.Error("the metrics say that it is ready, or know the lag")
	}
}

func (r *running) ready() {
	r.env.T.Helper()
	env.Eventually(r.env.T, "it is ready, and knows its lag", func() bool {
		code, body := r.get("http://" + r.OpsAddress() + "/readyz")
		_, metrics := r.get("http://" + r.OpsAddress() + "/metrics")
		return code == http.StatusOK && body == "ready\n" && r.status().Ready &&
			strings.Contains(metrics, "\ntwinegress_ready 1\n") && strings.Contains(metrics, "\ntwinegress_ingest_member 1\n") &&
			strings.Contains(metrics, "\ntwinegress_ingest_lag_records 0\n")
	})
}

// So it is with endpoints that are in Kafka: the API answers from the start, and says
// that it doesn't know them yet.
func TestRunWithEndpointsInKafkaThatIsGone(t *testing.T) {
	t.Parallel()
	h := env.New(t, env.Config{Partitions: 1})
	h.Network.Cut()
	r := start(h, app.Options{Config: load(h, env.Settings{
		"endpoints.store": config.StoreKafka, "endpoints.topic": "endpoints",
		"endpoints.secretsKeyFile": h.Write("secrets.key", []byte(storetest.AgeKey(t))),
	})})
	r.unready("waiting for Kafka")
	list := "http://" + r.APIAddress() + "/management/api/v1.0/endpoints"
	if code, body := r.get(list); code != http.StatusServiceUnavailable || !strings.Contains(body, "the endpoints are not loaded yet: waiting for Kafka for ") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := r.get("http://" + r.APIAddress() + "/management/api/v1.0/fleet"); code != http.StatusOK || !strings.Contains(body, "is not ready: waiting for Kafka") {
		t.Errorf("%d %s", code, body)
	}
	h.Network.Restore()
	env.Eventually(t, "the endpoints are loaded", func() bool {
		code, body := r.get(list)
		return code == http.StatusOK && body == "[]\n"
	})
}

// Without Kafka the program says so and waits, can be looked at and stopped, and
// runs once it is there; lost while it runs, the same.
func TestRunWithoutKafka(t *testing.T) {
	t.Parallel()
	for name, lose := range lost {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := env.New(t, env.Config{Partitions: 1})
			h.Write("endpoints.json", []byte("[]"))
			lose(h.Network)
			o := app.Options{Config: load(h, nil)}

			r := start(h, o)
			r.unready("waiting for Kafka")
			begun := time.Now()
			if err := r.stop(); err != nil || time.Since(begun) > o.Config.Shutdown.Timeout {
				t.Errorf("a stop while it waits took %v: %v", time.Since(begun), err)
			}

			r = start(h, o)
			r.unready("waiting for Kafka")
			if _, body := r.get("http://" + r.APIAddress() + "/management/api/v1.0/status"); !strings.Contains(body, `"endpoints":null`) {
				t.Errorf("that the endpoints of the file aren't in force yet doesn't show: %s", body)
			}
			if !strings.Contains(r.log.String(), "waiting for Kafka: nothing is read until it is there") {
				t.Error("the log doesn't say what it waits for")
			}
			h.Network.Restore()
			r.ready()

			lose(h.Network)
			r.unready("no Kafka broker has answered for ")
			h.Network.Restore()
			r.ready()
		})
	}
}
