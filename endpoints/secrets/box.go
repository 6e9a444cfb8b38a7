package secrets

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
)

// sealedPrefix begins an encrypted string. No plain one begins with it: an Event
// Grid key has no colon, and a connection string begins with Name=.
const sealedPrefix = "age:"

// Box encrypts and decrypts the secrets of one document. Seal and Open are
// endpoints.SecretFuncs. It is not safe for concurrent use.
type Box struct {
	ring   *Keyring
	before map[opened]string // sealed strings of the document before
	sealed map[opened]string // of this document, with the newest key only
	older  bool
	plain  bool
}

// opened is the content of a sealed string.
type opened struct{ secret, boundTo string }

// Box returns a box for a document that replaces the one of before, which may be
// nil.
func (k *Keyring) Box(before *Box) *Box {
	b := &Box{ring: k, sealed: make(map[opened]string)}
	if before != nil {
		b.before = before.sealed
	}
	return b
}

// Older reports whether Open opened a secret that is sealed with an older key than
// the newest.
func (b *Box) Older() bool { return b.older }

// Plain reports whether Open found a secret in the clear although there is a key.
func (b *Box) Plain() bool { return b.plain }

// Seal encrypts a secret. The same secret has the same form within a document, and
// in the one before it.
func (b *Box) Seal(secret, boundTo string) (string, error) {
	if b.ring == nil {
		return secret, nil
	}
	o := opened{secret, boundTo}
	s := b.sealed[o]
	if s == "" {
		s = b.before[o]
	}
	if s == "" {
		var err error
		if s, err = b.ring.seal(o); err != nil {
			return "", err
		}
	}
	b.sealed[o] = s
	return s, nil
}

// Open decrypts a secret, and returns s if it isn't sealed.
func (b *Box) Open(s, boundTo string) (string, error) {
	if !strings.HasPrefix(s, sealedPrefix) {
		b.plain = b.plain || b.ring != nil
		return s, nil
	}
	o, newest, err := b.ring.open(s)
	if err != nil {
		return "", err
	}
	if o.boundTo != boundTo {
		return "", errElsewhere
	}
	if newest {
		b.sealed[o] = s
	}
	b.older = b.older || !newest
	return o.secret, nil
}

// seal returns age:KEY.TEXT, where KEY is the wrapped data key and TEXT the nonce
// and the ciphertext, both in base64.
func (k *Keyring) seal(o opened) (string, error) {
	key, err := k.ownKey()
	if err != nil {
		return "", err
	}
	nonce := make([]byte, key.NonceSize()) // long enough to be random for ever
	_, _ = rand.Read(nonce)
	text := key.Seal(nonce, nonce, []byte(o.boundTo+"\x00"+o.secret), nil)
	return sealedPrefix + key.wrapped + "." + base64.StdEncoding.EncodeToString(text), nil
}

// Errors of Open. They must not quote any of the user's file.
var (
	errNoKeyring = errors.New("is encrypted, and endpoints.secretsKeyFile is not set")
	errNoKey     = errors.New("is encrypted with a key that endpoints.secretsKeyFile does not hold")
	errNotSealed = errors.New("begins with age: and is not an encrypted string, or a damaged one")
	errElsewhere = errors.New("is the encrypted key of another host: give the key itself")
)

func (k *Keyring) open(s string) (o opened, newest bool, err error) {
	if k == nil {
		return o, false, errNoKeyring
	}
	wrapped, text, ok := strings.Cut(strings.TrimPrefix(s, sealedPrefix), ".")
	data, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil {
		return o, false, errNotSealed
	}
	key, err := k.unwrap(wrapped)
	if err != nil {
		return o, false, err
	}
	if len(data) < key.NonceSize() {
		return o, false, errNotSealed
	}
	plain, err := key.Open(nil, data[:key.NonceSize()], data[key.NonceSize():], nil)
	boundTo, secret, ok := strings.Cut(string(plain), "\x00")
	if err != nil || !ok {
		return o, false, errNotSealed
	}
	return opened{secret, boundTo}, key.newest, nil
}
