package secrets_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"twinegress/endpoints"
	"twinegress/endpoints/secrets"
	"twinegress/endpoints/storetest"
)

func TestLoad(t *testing.T) {
	hybrid, err := age.GenerateHybridIdentity()
	storetest.Must(t, err)
	keys := []string{storetest.AgeKey(t), storetest.AgeKey(t)}
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
		storetest.Must(t, os.WriteFile(path, []byte(tc.content), 0o600))
		_, warning, err := secrets.Load(path)
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
	if _, _, err := secrets.Load(path); err == nil || !strings.Contains(err.Error(), "age-keygen -o "+path) {
		t.Errorf("missing: %v", err)
	}
	storetest.Must(t, os.WriteFile(path, []byte(keys[0]), 0o600))
	storetest.Must(t, os.Chmod(path, 0o640))
	if _, warning, err := secrets.Load(path); err != nil || !strings.Contains(warning, "chmod 600") {
		t.Errorf("readable by a group: %q, %v", warning, err)
	}
}

// What a store writes with a box is read again with another, and secrets that
// are in the clear where they needn't be, or sealed with an older key, are seen.
func TestBox(t *testing.T) {
	key := storetest.AgeKey(t)
	for name, k := range map[string]*secrets.Keyring{"sealed": storetest.Keyring(t, key), "in the clear": nil} {
		// One secret twice isn't taken for one in the clear.
		set, err := endpoints.Prepare([]endpoints.Endpoint{storetest.Grid("", func(e *endpoints.Endpoint) { e.SecondaryConnectionString = e.ConnectionString })}, endpoints.Options{})
		storetest.Must(t, err)
		e := set[0]
		encode := func(seal endpoints.SecretFunc) string {
			text, err := endpoints.Encode(e, seal)
			storetest.Must(t, err)
			return string(text)
		}
		box := k.Box(nil)
		first := encode(box.Seal)
		if first != encode(box.Seal) || first != encode(k.Box(box).Seal) {
			t.Errorf("%s: the same endpoint is written in two ways", name)
		}
		if other := encode(k.Box(nil).Seal); (other == first) != (k == nil) {
			t.Errorf("%s: encrypting a secret twice returns the same", name)
		}
		if strings.Contains(first, "SECRET") != (k == nil) {
			t.Errorf("%s: %s", name, first)
		}
		for reader, want := range map[*secrets.Keyring]struct{ older, plain bool }{
			k: {false, false},
			storetest.Keyring(t, storetest.AgeKey(t), key): {k != nil, k == nil},
		} {
			box := reader.Box(nil)
			got, err := endpoints.DecodeStored([]byte(first), box.Open, endpoints.Options{})
			if err != nil || !got.Equal(e) || box.Older() != want.older || box.Plain() != want.plain {
				t.Errorf("%s: read again: %s, older %t, plain %t, %v", name, got, box.Older(), box.Plain(), err)
			}
		}
	}
}

// What can't be decrypted is a violation that says why.
func TestSecretsThatCantBeOpened(t *testing.T) {
	k := storetest.Keyring(t, storetest.AgeKey(t))
	sealed, err := endpoints.Encode(storetest.Grid(""), k.Box(nil).Seal)
	storetest.Must(t, err)
	good := string(sealed)
	at := strings.Index(good, `"age:`) + 100
	const (
		notSealed = "connectionString: begins with age: and is not an encrypted string"
		elsewhere = "connectionString: is the encrypted key of another host"
	)
	for name, tc := range map[string]struct {
		content string
		ring    *secrets.Keyring
		want    string // "": it is opened
	}{
		"as it was":          {good, k, ""},
		"a host has no case": {strings.Replace(good, `"topic.`, `"Topic.`, 1), k, ""},
		"no keyring":         {good, nil, "secondaryConnectionString: is encrypted, and endpoints.secretsKeyFile is not set"},
		"another key":        {good, storetest.Keyring(t, storetest.AgeKey(t)), "secondaryConnectionString: is encrypted with a key that endpoints.secretsKeyFile does not hold"},
		"damaged":            {good[:at] + "AAAA" + good[at+4:], k, notSealed},
		"not base64":         {good[:at] + "!" + good[at:], k, notSealed},
		"to another host":    {strings.Replace(good, `"topic.`, `"evil.`, 1), k, elsewhere},
		"to another type":    {strings.NewReplacer("EventGrid", "EventHub", "topic.westus-1.eventgrid.azure.net", "hub").Replace(good), k, elsewhere},
	} {
		_, err := endpoints.DecodeStored([]byte(tc.content), tc.ring.Box(nil).Open, endpoints.Options{})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
