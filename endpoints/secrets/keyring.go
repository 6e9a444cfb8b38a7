// Package secrets encrypts the secrets of endpoints with age, for a store.
//
// A [Keyring] holds the keys of endpoints.secretsKeyFile. A [Box] encrypts and
// decrypts the secrets of one document with it, and keeps their encrypted form, so
// that an unchanged secret is written unchanged: encrypting twice never returns
// the same string.
package secrets

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"

	"filippo.io/age"
	"golang.org/x/crypto/chacha20poly1305"

	"twinegress/internal/file"
)

// Keyring holds age identities. A nil Keyring encrypts nothing.
//
// It has one key or several: it encrypts with the first and decrypts with any.
// To rotate, a new key is put first, and the old one removed when no secret is
// encrypted with it any more.
type Keyring struct {
	identities []age.Identity
	newest     age.Recipient

	mu        sync.Mutex
	own       *dataKey
	unwrapped map[string]unwrapped // by wrapped form
}

// Load reads a file of age identities, one a line, as age-keygen writes them.
// warning is for the operator, or empty.
func Load(path string) (k *Keyring, warning string, err error) {
	data, err := file.Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", fmt.Errorf("endpoints.secretsKeyFile %s does not exist: make one with age-keygen -o %s: %w", path, path, err)
	case err != nil:
		return nil, "", fmt.Errorf("endpoints.secretsKeyFile: %w", err)
	}
	k = &Keyring{unwrapped: make(map[string]unwrapped)}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// Line by line, and without age's message, which may quote the key.
		ids, err := age.ParseIdentities(strings.NewReader(line))
		if err != nil || len(ids) != 1 {
			return nil, "", fmt.Errorf("endpoints.secretsKeyFile %s, line %d: must be an age secret key, "+
				"AGE-SECRET-KEY-…, or a comment", path, i+1)
		}
		k.identities = append(k.identities, ids[0])
	}
	if len(k.identities) == 0 {
		return nil, "", fmt.Errorf("endpoints.secretsKeyFile %s holds no age secret key: make one with age-keygen", path)
	}
	switch id := k.identities[0].(type) {
	case *age.X25519Identity:
		k.newest = id.Recipient()
	case *age.HybridIdentity:
		k.newest = id.Recipient()
	default:
		return nil, "", fmt.Errorf("endpoints.secretsKeyFile %s: the first key is of a kind that can't encrypt", path)
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		warning = fmt.Sprintf("endpoints.secretsKeyFile %s can be read by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	return k, warning, nil
}

// dataKey encrypts secrets. It is itself encrypted with a key of the ring, and
// stored with every secret in that form. So age's public-key operation, which takes
// a fraction of a millisecond, runs once for everything that one process wrote,
// not once for each of thousands of secrets.
type dataKey struct {
	cipher.AEAD
	wrapped string // with age, in base64
	newest  bool   // with the newest key of the ring
}

func newDataKey(secret []byte, wrapped string, newest bool) (*dataKey, error) {
	aead, err := chacha20poly1305.NewX(secret)
	return &dataKey{aead, wrapped, newest}, err
}

// ownKey returns this process's data key, which it makes on the first call.
func (k *Keyring) ownKey() (*dataKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.own != nil {
		return k.own, nil
	}
	secret := make([]byte, chacha20poly1305.KeySize)
	_, _ = rand.Read(secret) // it never fails
	var b bytes.Buffer
	w, err := age.Encrypt(&b, k.newest)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(secret); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	k.own, err = newDataKey(secret, base64.StdEncoding.EncodeToString(b.Bytes()), true)
	return k.own, err
}

const (
	// maxWrapped bounds a wrapped data key. That of the largest kind of age key
	// has 2 KiB.
	maxWrapped = 8 << 10
	// maxUnwrapped bounds the cache of data keys, one for each process that wrote a
	// secret which is still there. Without a bound, whoever writes one record after
	// the other fills the memory of every copy.
	maxUnwrapped = 4096
)

// unwrap returns the data key with a wrapped form, and caches it or the error.
func (k *Keyring) unwrap(wrapped string) (*dataKey, error) {
	if len(wrapped) > maxWrapped {
		return nil, errNotSealed
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if u, ok := k.unwrapped[wrapped]; ok {
		return u.key, u.err
	}
	key, err := k.unwrapAnew(wrapped)
	if len(k.unwrapped) >= maxUnwrapped {
		clear(k.unwrapped)
	}
	k.unwrapped[wrapped] = unwrapped{key, err}
	return key, err
}

type unwrapped struct {
	key *dataKey
	err error
}

func (k *Keyring) unwrapAnew(wrapped string) (*dataKey, error) {
	data, err := base64.StdEncoding.DecodeString(wrapped)
	if err != nil {
		return nil, errNotSealed
	}
	for i, id := range k.identities {
		r, err := age.Decrypt(bytes.NewReader(data), id)
		if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
			continue
		}
		if err != nil {
			return nil, errNotSealed
		}
		if secret, err := io.ReadAll(r); err == nil {
			if key, err := newDataKey(secret, wrapped, i == 0); err == nil {
				return key, nil
			}
		}
		return nil, errNotSealed
	}
	return nil, errNoKey
}
