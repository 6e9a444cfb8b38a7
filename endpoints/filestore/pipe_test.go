//go:build unix

package filestore

import (
	"syscall"
	"testing"

	"twinegress/endpoints/storetest"
)

func mkfifo(t *testing.T, path string) {
	t.Helper()
	storetest.Must(t, syscall.Mkfifo(path, 0o600))
}
