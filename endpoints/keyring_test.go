package endpoints

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// ageKeys are n secret keys in the form of a file's lines.
func ageKeys(t testing.TB, n int) []string {
	t.Helper()
	lines := make([]string, n)
	for i := range lines {
		id, err := age.GenerateX25519Identity()
		must(t, err)
		lines[i] = id.String()
	}
	return lines
}

func keyring(t testing.TB, lines ...string) *Keyring {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.txt")
	write(t, path, "# made for a test\n\n"+strings.Join(lines, "\n"))
	k, warning, err := LoadKeyring(path)
	if err != nil || warning != "" {
		t.Fatalf("%q, %v", warning, err)
	}
	return k
}

func TestLoadKeyring(t *testing.T) {
	hybrid, err := age.GenerateHybridIdentity()
	must(t, err)
	keys := ageKeys(t, 2)
	for name, tc := range map[string]struct {
		content string
		want    string // part of the error
	}{
		"one":              {content: keys[0]},
		"two, with spaces": {content: "# old and new\r\n" + keys[0] + "\r\n\n  " + keys[1]},
		"post-quantum":     {content: hybrid.String()},
		"none":             {content: "# nothing\n", want: "holds no age secret key"},
		"a public key":     {content: keys[0] + "\nage1SECRET", want: "line 2: must be an age secret key"},
		"a broken key":     {content: keys[0][:40], want: "line 1: must be an age secret key"},
	} {
		path := filepath.Join(t.TempDir(), "keys.txt")
		write(t, path, tc.content)
		_, warning, err := LoadKeyring(path)
		switch {
		case tc.want == "" && (err != nil || warning != ""):
			t.Errorf("%s: %q, %v", name, warning, err)
		case tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path)):
			t.Errorf("%s: %v", name, err)
		case err != nil && (strings.Contains(err.Error(), keys[0][20:40]) || strings.Contains(err.Error(), "SECRET-KEY-1")):
			t.Errorf("%s: the error shows a key: %v", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "keys.txt")
	if _, _, err := LoadKeyring(path); err == nil || !strings.Contains(err.Error(), "age-keygen -o "+path) {
		t.Errorf("missing: %v", err)
	}
	write(t, path, keys[0])
	must(t, os.Chmod(path, 0o640))
	if _, warning, err := LoadKeyring(path); err != nil || !strings.Contains(warning, "chmod 600") {
		t.Errorf("readable by a group: %q, %v", warning, err)
	}
}

// sealedStore is a loaded store of a file with a keyring.
func sealedStore(t *testing.T, path string, lines ...string) *FileStore {
	t.Helper()
	s := NewFileStore(path, FileOptions{Keyring: keyring(t, lines...)})
	_, err := s.Load(t.Context())
	must(t, err)
	return s
}

func contents(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	return string(data)
}

func noPlainSecret(t *testing.T, path string) {
	t.Helper()
	data := contents(t, path)
	for _, s := range []string{"SECRET", "SharedAccessKey", key1, key2} {
		if strings.Contains(data, s) {
			t.Errorf("%s is in the clear in:\n%s", s, data)
		}
	}
}

func TestFileHoldsNoSecretInTheClear(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, "["+body(`,"name":"by hand"`)+"]")
	keys := ageKeys(t, 2)
	s := sealedStore(t, path, keys[0])
	if !strings.Contains(contents(t, path), key1) {
		t.Fatal("loading wrote into the file")
	}
	_, err := s.Change(t.Context(), add(grid()))
	must(t, err)
	noPlainSecret(t, path)

	// A write leaves what didn't change as it was, to the byte.
	first := strings.Split(contents(t, path), "\n")
	_, err = s.Change(t.Context(), func(set []Endpoint) ([]Endpoint, error) {
		set[0].Name = "renamed"
		return set, nil
	})
	must(t, err)
	changed := 0
	for i, line := range strings.Split(contents(t, path), "\n") {
		if i >= len(first) || line != first[i] {
			changed++
		}
	}
	if changed != 2 {
		t.Errorf("%d lines changed, want the name and the time", changed)
	}

	again := sealedStore(t, path, keys[0]).Current()
	if len(again) != 2 || again[0].ConnectionString != ehConn || again[1].ConnectionString != key1 ||
		again[1].SecondaryConnectionString != key2 || !again[0].LastUpdated.Equal(s.Current()[0].LastUpdated) {
		t.Errorf("read again: %v", again)
	}

	for name, o := range map[string]FileOptions{
		"is encrypted, and endpoints.secretsKeyFile is not set":               {},
		"is encrypted with a key that endpoints.secretsKeyFile does not hold": {Keyring: keyring(t, keys[1])},
	} {
		_, err := NewFileStore(path, o).Load(t.Context())
		if err == nil || !strings.Contains(err.Error(), "endpoints[0] (renamed): connectionString: "+name) ||
			!strings.Contains(err.Error(), "endpoints[1]: secondaryConnectionString: "+name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDamagedAndMovedSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, "[]")
	keys := ageKeys(t, 1)
	s := sealedStore(t, path, keys[0])
	_, err := s.Change(t.Context(), add(grid()))
	must(t, err)
	good := contents(t, path)
	at := strings.Index(good, `"age:`) + 100
	for name, tc := range map[string]struct{ content, want string }{
		"damaged":         {good[:at] + "AAAA" + good[at+4:], "connectionString: begins with age: and is not an encrypted string"},
		"not base64":      {good[:at] + "!" + good[at:], "connectionString: begins with age: and is not an encrypted string"},
		"to another host": {strings.Replace(good, `"topic.`, `"evil.`, 1), "connectionString: is the encrypted key of another host"},
		"to another type": {
			strings.NewReplacer("EventGrid", "EventHub", "topic.westus-1.eventgrid.azure.net", "hub").Replace(good),
			"connectionString: is the encrypted key of another host",
		},
	} {
		write(t, path, tc.content)
		_, err := s.Load(t.Context())
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	write(t, path, strings.Replace(good, `"topic.`, `"Topic.`, 1)) // a host has no case
	_, err = s.Load(t.Context())
	must(t, err)
}

// Rotation, as docs/operations.md describes it.
func TestKeyRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, "["+body(`,"name":"a"`)+"]")
	keys := ageKeys(t, 2)
	s := sealedStore(t, path, keys[0])
	_, err := s.Change(t.Context(), add(hub(named("b"))))
	must(t, err)

	// The new key goes to the front, and the process is restarted.
	core, logs := observer.New(zap.InfoLevel)
	s = NewFileStore(path, FileOptions{Keyring: keyring(t, keys[1], keys[0]), Logger: zap.New(core)})
	_, err = s.Load(t.Context())
	must(t, err)
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
	if len(last) != 2 || last[0].ConnectionString != ehConn || last[1].SecondaryConnectionString != ehConn2 {
		t.Errorf("with the new key alone: %v", last)
	}
	noPlainSecret(t, path)
	noSecret(t, fmt.Sprint(logs.All()))
}

func TestEncoder(t *testing.T) {
	for name, k := range map[string]*Keyring{"sealed": keyring(t, ageKeys(t, 1)...), "in the clear": nil} {
		e, err := Prepare([]Endpoint{grid()}, Options{})
		must(t, err)
		enc := NewEncoder(k)
		first, err := enc.Encode(e[0])
		must(t, err)
		second, err := enc.Encode(e[0])
		must(t, err)
		if string(first) != string(second) {
			t.Errorf("%s: the same encoder wrote the same endpoint in two ways", name)
		}
		if other, err := NewEncoder(k).Encode(e[0]); err != nil || (string(other) == string(first)) != (k == nil) {
			t.Errorf("%s: encrypting a secret twice gives the same, %v", name, err)
		}
		if strings.Contains(string(first), "SECRET") != (k == nil) {
			t.Errorf("%s: %s", name, first)
		}
		got, stale, err := DecodeStored(first, k, Options{})
		if err != nil || stale || !got.Equal(e[0]) || got.ConnectionString != key1 {
			t.Errorf("%s: read again: %s, stale %t, %v", name, got, stale, err)
		}
	}
	plain, err := NewEncoder(nil).Encode(grid())
	must(t, err)
	if _, stale, err := DecodeStored(plain, keyring(t, ageKeys(t, 1)...), Options{}); err != nil || !stale {
		t.Errorf("in the clear where it need not be: stale %t, %v", stale, err)
	}
	for in, notAnEndpoint := range map[string]bool{"": true, "{": true, "[]": true, "{}": false, `{"x":1}`: false} {
		_, _, err := DecodeStored([]byte(in), nil, Options{})
		var v ValidationErrors
		if !errors.As(err, &v) || v.NotAnEndpoint() != notAnEndpoint {
			t.Errorf("%s: %v", in, err)
		}
	}
}
