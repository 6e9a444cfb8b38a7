package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/server/api"
	"twinegress/pipeline"
)

var update = flag.Bool("update", false, "write docs/openapi.yaml as it is served")

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// The API's description in the documents is the one that is served:
// go test ./cmd/twinegress -run OpenAPI -update
func TestOpenAPIDocument(t *testing.T) {
	const file = "../../docs/openapi.yaml"
	store, err := endpoints.NewMemoryStore(nil, endpoints.Options{})
	if err != nil {
		t.Fatal(err)
	}
	handler := api.New(api.Options{
		Store: store, Tokens: []api.Token{{Name: "t", SHA256: sha256Hex("token")}}, RateLimit: 100, Log: zap.NewNop(),
	}, (*pipeline.Pipeline)(nil).Status, (*pipeline.Pipeline)(nil).EndpointStatus)
	request := httptest.NewRequest(http.MethodGet, "/openapi.yaml", nil)
	request.Header.Set("Authorization", "Bearer token")
	served := httptest.NewRecorder()
	handler.ServeHTTP(served, request)
	if served.Code != http.StatusOK {
		t.Fatal(served.Body)
	}
	if *update {
		if err := os.WriteFile(file, served.Body.Bytes(), 0o644); err != nil { //nolint:gosec // a document, for everyone
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(committed) != served.Body.String() {
		t.Errorf("%s is not what is served: go test ./cmd/twinegress -run OpenAPI -update, and look at the difference", file)
	}
}
