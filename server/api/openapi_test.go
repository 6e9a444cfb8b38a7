package api

import (
	"flag"
	"net/http"
	"os"
	"testing"

	"twinegress/endpoints/storetest"
)

var update = flag.Bool("update", false, "write docs/openapi.yaml as it is served")

// The API's description in the documents is the one that is served:
// go test ./server/api -run OpenAPI -update
func TestOpenAPIDocument(t *testing.T) {
	const file = "../../docs/openapi.yaml"
	served := newEnv(t).do(call{method: "GET", path: "/openapi.yaml"})
	if served.Code != http.StatusOK {
		t.Fatal(served.Body)
	}
	if *update {
		storetest.Must(t, os.WriteFile(file, served.Body.Bytes(), 0o644))
	}
	committed, err := os.ReadFile(file)
	storetest.Must(t, err)
	if string(committed) != served.Body.String() {
		t.Errorf("%s is not what is served: go test ./server/api -run OpenAPI -update, and look at the difference", file)
	}
}
