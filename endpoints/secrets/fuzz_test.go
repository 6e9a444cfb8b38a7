package secrets

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
)

func testKeyring(t testing.TB) *Keyring {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(id.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	k, _, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// However many data keys others write, few are remembered, and none that is too long
// to be one.
func TestCacheIsBounded(t *testing.T) {
	k := testKeyring(t)
	sealed, err := k.Box(nil).Seal("secret", "host")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 * maxUnwrapped {
		if _, err := k.Box(nil).Open(fmt.Sprintf("age:garbage%d.AAAA", i), "host"); err == nil {
			t.Fatal("garbage is opened")
		}
	}
	if n := len(k.unwrapped); n == 0 || n > maxUnwrapped {
		t.Errorf("%d are remembered", n)
	}
	if got, err := k.Box(nil).Open(sealed, "host"); got != "secret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for size, remembered := range map[int]bool{maxWrapped - 1: true, maxWrapped: true, maxWrapped + 1: false} {
		long := strings.Repeat("A", size)
		_, err := k.Box(nil).Open("age:"+long+".AAAA", "host")
		if _, ok := k.unwrapped[long]; ok != remembered || err == nil {
			t.Errorf("%d characters: remembered %t, %v", size, ok, err)
		}
	}
}

// FuzzOpen holds: whatever is in a store, opening it returns a secret that was sealed
// for that host, or one of four errors, which quote nothing of it.
func FuzzOpen(f *testing.F) {
	k, other := testKeyring(f), testKeyring(f)
	const host = "topic.example.net"
	secrets := []string{"SECRET-one=", "SECRET-two=", ""}
	box := k.Box(nil)
	for _, s := range secrets {
		sealed, err := box.Seal(s, host)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed, host)
		f.Add(sealed, "evil.example.net")
		f.Add(sealed[:len(sealed)-8], host)
		f.Add(strings.Replace(sealed, ".", "", 1), host)
		f.Add(strings.Replace(sealed, ".", ".AAAA", 1), host)
	}
	foreign, err := other.Box(nil).Seal("SECRET-three=", host)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(foreign, host)
	f.Add("age:", host)
	f.Add("age:.", "")
	f.Add("age:AAAA.AAAA", "")
	f.Add("SECRET-in-the-clear", host)
	errs := []error{errNoKeyring, errNoKey, errNotSealed, errElsewhere}
	f.Fuzz(func(t *testing.T, s, boundTo string) {
		for _, ring := range []*Keyring{k, nil} {
			got, err := ring.Box(nil).Open(s, boundTo)
			switch {
			case err != nil:
				if !slices.Contains(errs, err) || got != "" {
					t.Fatalf("%q: %q, %v", s, got, err)
				}
			case !strings.HasPrefix(s, sealedPrefix):
				if got != s {
					t.Fatalf("%q, in the clear, is read as %q", s, got)
				}
			case ring == nil || boundTo != host || !slices.Contains(secrets, got):
				t.Fatalf("%q for %q is opened: %q", s, boundTo, got)
			}
		}
		if len(k.unwrapped) > maxUnwrapped {
			t.Fatalf("%d keys are remembered", len(k.unwrapped))
		}
	})
}
