package app

import (
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/file"
)

// What is written into the endpoints file can be read again.
func TestEndpointsFileCanBeReadAgain(t *testing.T) {
	if endpoints.MaxSetBytes > file.MaxSize {
		t.Errorf("up to %d bytes are written, and %d read", endpoints.MaxSetBytes, file.MaxSize)
	}
}
