package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"twinegress/endpoints"
	"twinegress/internal/config"
)

// Two copies with the endpoints in a topic: what one is told, both do.
func TestEndpointsInATopic(t *testing.T) {
	w := newWorld(t, 4)
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	const token = "a token of the test"
	sum := sha256.Sum256([]byte(token))
	cfg := w.config()
	cfg.Endpoints.Store = config.StoreKafka
	cfg.Endpoints.SecretsKeyFile = w.write("secrets.key", []byte(key.String()))
	cfg.API.Tokens = []config.Token{{Name: "test", SHA256: hex.EncodeToString(sum[:]), Role: config.RoleWrite}}
	a, b := w.startWith(cfg), w.startWith(cfg)

	call := func(r *running, method, path string, body []byte) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.APIAddress()+"/management/api/v1.0/endpoints"+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		request.Header.Set("Content-Type", "application/json")
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(text)
	}
	body := func(e endpoints.Endpoint) []byte { return bytes.Trim(file(e), "[]") }
	routes := func(r *running) int { return len(r.Pipeline.Status().Endpoints) }
	var slowest time.Duration
	follows := func(r *running, what string, n int) {
		t.Helper()
		start := time.Now()
		eventually(t, what, func() bool { return routes(r) == n })
		slowest = max(slowest, time.Since(start))
	}

	eventually(t, "an API that answers", func() bool { status, _ := call(a, http.MethodGet, "", nil); return status == http.StatusOK })
	status, id := call(a, http.MethodPost, "", body(w.hub("SensorChange")))
	if status != http.StatusCreated {
		t.Fatalf("POST: %d %s", status, id)
	}
	follows(a, "the copy that was asked routes to it", 1)
	follows(b, "the other copy routes to it", 1)
	// The other one has it as well, and knows what it must not have twice.
	if status, text := call(b, http.MethodPost, "", body(w.hub("SpaceChange"))); status != http.StatusConflict {
		t.Errorf("the same name at the other copy: %d %s", status, text)
	}
	for i := range 8 {
		w.produce(value(fmt.Sprintf(`{"id":"%d","subject":"s","eventType":"SensorChange","data":{}}`, i)))
	}
	eventually(t, "all arrive", func() bool { return len(w.services.Messages("hub")) >= 8 })

	path := "/" + strings.Trim(strings.TrimSpace(id), `"`)
	if status, text := call(b, http.MethodDelete, path, nil); status != http.StatusNoContent {
		t.Errorf("DELETE at the other copy: %d %s", status, text)
	}
	follows(b, "the copy that was asked lets go of it", 0)
	follows(a, "so does the first", 0)
	t.Logf("the slowest copy followed after %s", slowest)
	if slowest > 3*time.Second {
		t.Errorf("a copy took %s to follow", slowest)
	}
}
