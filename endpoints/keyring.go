package endpoints

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
)

// Keyring encrypts the secrets that a store writes down, with age, and
// decrypts those that it reads. A nil Keyring encrypts nothing.
//
// It has one key or several: it encrypts with the first and decrypts with any.
// To rotate, a new key goes to the front, and the old one leaves when nothing
// is left that only it can decrypt.
type Keyring struct {
	identities []age.Identity
	newest     age.Recipient

	mu        sync.Mutex
	own       *dataKey
	unwrapped map[string]unwrapped // by their wrapped form
}

// sealedPrefix begins a connection string that is encrypted. No other can begin
// so: an Event Grid key has no colon, and a connection string begins with Name=.
const sealedPrefix = "age:"

// LoadKeyring reads a file of age identities, as age-keygen makes them, one a
// line. warning is something that its owner should know, or empty.
func LoadKeyring(path string) (k *Keyring, warning string, err error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "", fmt.Errorf("endpoints.secretsKeyFile %s does not exist: make one with age-keygen -o %s: %w", path, path, err)
	case err != nil:
		return nil, "", fmt.Errorf("endpoints.secretsKeyFile: %w", err)
	}
	k = &Keyring{}
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		// Line by line, and without age's own message: it may quote the key.
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

// opened is what a sealed string holds.
type opened struct {
	secret string
	place  string
	newest bool // it is sealed with the newest key
}

// sealedSecrets are the sealed strings of a set in force. Sealing never gives the
// same string twice: what didn't change is to be written as it was.
type sealedSecrets map[string]opened

// place is where an endpoint's key goes, if the string that holds it doesn't
// say so itself. It is sealed with the key: whoever can write to the store but
// has no key of the ring must not be able to send a secret elsewhere.
func (e Endpoint) place() string {
	if e.Type == TypeEventGrid {
		return strings.ToLower(e.Path)
	}
	return ""
}

// dataKey is what secrets are encrypted with. It is itself encrypted with a key
// of the ring, and stored with every secret in that form. So age, whose
// public-key work takes a fraction of a millisecond, is asked once for all that
// one process has written, not once for each of thousands of secrets.
type dataKey struct {
	cipher.AEAD
	wrapped string // with age, in base64
	newest  bool   // with the newest key of the ring
}

func newDataKey(secret []byte, wrapped string, newest bool) (*dataKey, error) {
	aead, err := chacha20poly1305.NewX(secret)
	return &dataKey{aead, wrapped, newest}, err
}

// ownKey is this process's data key, made when it is first needed.
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

// unwrap gives the data key that a secret is encrypted with, or why it can't.
func (k *Keyring) unwrap(wrapped string) (*dataKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if u, ok := k.unwrapped[wrapped]; ok {
		return u.key, u.err
	}
	key, err := k.unwrapAnew(wrapped)
	if k.unwrapped == nil {
		k.unwrapped = make(map[string]unwrapped)
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
		secret, err := io.ReadAll(r)
		if err != nil {
			return nil, errNotSealed
		}
		key, err := newDataKey(secret, wrapped, i == 0)
		if err != nil {
			return nil, errNotSealed
		}
		return key, nil
	}
	return nil, errNoKey
}

// seal encrypts a secret: age:KEY.TEXT, where KEY is the data key, TEXT the
// nonce and what it encrypts, both in base64.
func (k *Keyring) seal(secret, place string) (string, error) {
	key, err := k.ownKey()
	if err != nil {
		return "", err
	}
	nonce := make([]byte, key.NonceSize()) // long enough to be random for ever
	_, _ = rand.Read(nonce)
	text := key.Seal(nonce, nonce, []byte(place+"\x00"+secret), nil)
	return sealedPrefix + key.wrapped + "." + base64.StdEncoding.EncodeToString(text), nil
}

// Errors that open gives. They tell of the user's file, and quote none of it.
var (
	errNoKeyring = errors.New("is encrypted, and endpoints.secretsKeyFile is not set")
	errNoKey     = errors.New("is encrypted with a key that endpoints.secretsKeyFile does not hold")
	errNotSealed = errors.New("begins with age: and is not an encrypted string, or a damaged one")
	errElsewhere = errors.New("is the encrypted key of another host: give the key itself")
)

func (k *Keyring) open(s string) (opened, error) {
	if k == nil {
		return opened{}, errNoKeyring
	}
	wrapped, text, ok := strings.Cut(strings.TrimPrefix(s, sealedPrefix), ".")
	data, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil {
		return opened{}, errNotSealed
	}
	key, err := k.unwrap(wrapped)
	if err != nil {
		return opened{}, err
	}
	if len(data) < key.NonceSize() {
		return opened{}, errNotSealed
	}
	plain, err := key.Open(nil, data[:key.NonceSize()], data[key.NonceSize():], nil)
	place, secret, ok := strings.Cut(string(plain), "\x00")
	if err != nil || !ok {
		return opened{}, errNotSealed
	}
	return opened{secret: secret, place: place, newest: key.newest}, nil
}

// openAll opens what is sealed in the endpoints of a set, adds to known what
// can't be, and returns what was.
func (k *Keyring) openAll(set []Endpoint, known []ValidationErrors) sealedSecrets {
	sealed := make(sealedSecrets)
	for i := range set {
		e := &set[i]
		for _, f := range []struct {
			field string
			s     *string
		}{{"connectionString", &e.ConnectionString}, {"secondaryConnectionString", &e.SecondaryConnectionString}} {
			if !strings.HasPrefix(*f.s, sealedPrefix) {
				continue
			}
			o, err := k.open(*f.s)
			if err == nil && o.place != e.canonical().place() {
				err = errElsewhere
			}
			if err != nil {
				known[i].add(f.field, err.Error())
				continue
			}
			sealed[*f.s] = o
			*f.s = o.secret
		}
	}
	return sealed
}

// Encoder writes endpoints as a store keeps them. The same secret comes out in
// the same form, as long as the encoder lives.
type Encoder struct {
	k    *Keyring
	done map[opened]string
}

// NewEncoder returns an Encoder that encrypts with the newest key of k; nil
// encrypts nothing.
func NewEncoder(k *Keyring) *Encoder { return &Encoder{k: k, done: make(map[opened]string)} }

// reuse makes the encoder write what is sealed already as it is, unless that is
// with an older key.
func (enc *Encoder) reuse(sealed sealedSecrets) {
	for s, o := range sealed {
		if o.newest {
			enc.done[o] = s
		}
	}
}

// document is an endpoint as JSON holds it, the secrets encrypted. What was
// sealed for it is added to sealed.
func (enc *Encoder) document(e Endpoint, sealed sealedSecrets) (document, error) {
	d := e.document()
	if enc.k == nil {
		return d, nil
	}
	for _, s := range []*string{&d.ConnectionString, &d.SecondaryConnectionString} {
		if *s == "" {
			continue
		}
		o := opened{secret: *s, place: e.place(), newest: true}
		if enc.done[o] == "" {
			var err error
			if enc.done[o], err = enc.k.seal(o.secret, o.place); err != nil {
				return d, fmt.Errorf("encrypting the secrets of %s: %w", e, err)
			}
		}
		*s = enc.done[o]
		sealed[*s] = o
	}
	return d, nil
}

// stale reports whether anything is sealed with another than the newest key.
func (s sealedSecrets) stale() bool {
	for _, o := range s {
		if !o.newest {
			return true
		}
	}
	return false
}
