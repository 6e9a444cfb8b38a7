package filestore

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

// sealedStore is a loaded store of a file with a keyring.
func sealedStore(t *testing.T, path string, lines ...string) *Store {
	t.Helper()
	s := New(path, Options{Keyring: storetest.Keyring(t, lines...)})
	_, err := s.Load(t.Context())
	storetest.Must(t, err)
	return s
}

func contents(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	storetest.Must(t, err)
	return string(data)
}

func noPlainSecret(t *testing.T, path string) {
	t.Helper()
	data := contents(t, path)
	for _, s := range []string{"SECRET", "SharedAccessKey", storetest.Key1, storetest.Key2} {
		if strings.Contains(data, s) {
			t.Errorf("%s is in the clear in:\n%s", s, data)
		}
	}
}

func TestFileHoldsNoSecretInTheClear(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, "["+body(`,"name":"by hand"`)+"]")
	key := storetest.AgeKey(t)
	s := sealedStore(t, path, key)
	if !strings.Contains(contents(t, path), storetest.Key1) {
		t.Fatal("loading wrote into the file")
	}
	_, err := s.Change(t.Context(), storetest.Add(storetest.Grid("")))
	storetest.Must(t, err)
	noPlainSecret(t, path)

	// A write leaves what didn't change as it was, to the byte.
	first := strings.Split(contents(t, path), "\n")
	_, err = s.Change(t.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		set[0].Name = "renamed"
		return set, nil
	})
	storetest.Must(t, err)
	changed := 0
	for i, line := range strings.Split(contents(t, path), "\n") {
		if i >= len(first) || line != first[i] {
			changed++
		}
	}
	if changed != 2 {
		t.Errorf("%d lines changed, want the name and the time", changed)
	}

	again := sealedStore(t, path, key).Current()
	if len(again) != 2 || again[0].ConnectionString != storetest.Conn1 || again[1].ConnectionString != storetest.Key1 ||
		again[1].SecondaryConnectionString != storetest.Key2 || !again[0].LastUpdated.Equal(s.Current()[0].LastUpdated) {
		t.Errorf("read again: %v", again)
	}
}

// Rotation, as docs/operations.md describes it.
func TestKeyRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, "["+body(`,"name":"a"`)+"]")
	keys := []string{storetest.AgeKey(t), storetest.AgeKey(t)}
	s := sealedStore(t, path, keys[0])
	_, err := s.Change(t.Context(), storetest.Add(storetest.Hub("b")))
	storetest.Must(t, err)

	// The new key goes to the front, and the process is restarted.
	core, logs := observer.New(zap.InfoLevel)
	s = New(path, Options{Keyring: storetest.Keyring(t, keys[1], keys[0]), Logger: zap.New(core)})
	_, err = s.Load(t.Context())
	storetest.Must(t, err)
	s.reseal(t.Context())
	if n := logs.FilterMessageSnippet("newest key").Len(); n != 1 {
		t.Errorf("%d log lines say that the rotation is done", n)
	}
	rewritten := contents(t, path)
	s.reseal(t.Context())
	if contents(t, path) != rewritten {
		t.Error("nothing is stale, and the file was written again")
	}

	// The old key goes.
	last := sealedStore(t, path, keys[1]).Current()
	if len(last) != 2 || last[0].ConnectionString != storetest.Conn1 || last[1].SecondaryConnectionString != storetest.Conn2 {
		t.Errorf("with the new key alone: %v", last)
	}
	noPlainSecret(t, path)
	storetest.NoSecret(t, "a log", fmt.Sprint(logs.All()))
}
