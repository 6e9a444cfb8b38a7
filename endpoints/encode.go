package endpoints

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Document is an endpoint in JSON. It has none of Endpoint's methods, so nothing
// masks its secrets: see [Endpoint.Document].
type Document Endpoint

// Document returns e with its secrets masked, for output. It isn't a valid
// endpoint.
func (e Endpoint) Document() Document {
	e.secrets(func(_ string, s *string) {
		if e.Type.AMQP() {
			*s = masked(*s)
		} else {
			*s = mask // a bare key, even if it should look like a connection string
		}
	})
	e.LastUpdated = e.LastUpdated.UTC()
	return Document(e)
}

// MarshalJSON returns e with its secrets masked: a key leaves this process only
// to its service, or through Encode and EncodeSet to its store.
func (e Endpoint) MarshalJSON() ([]byte, error) { return json.Marshal(e.Document()) }

// SecretFunc encrypts a secret for a store, or decrypts it. boundTo is the host
// that the secret may be sent to, if it doesn't say so itself. A nil SecretFunc
// leaves secrets as they are. See package secrets.
type SecretFunc func(s, boundTo string) (string, error)

// Encode returns one endpoint as a store keeps it: a POST body without defaults, but
// with its id and its time, the secrets encrypted by seal.
func Encode(e Endpoint, seal SecretFunc) ([]byte, error) {
	d, err := sealed(e, seal)
	if err != nil {
		return nil, err
	}
	return json.Marshal(d)
}

// MaxSetBytes is the size of the largest set that is written: what is larger isn't
// read again (file.MaxSize).
const MaxSetBytes = 64 << 20

// EncodeSet returns a set as people write it: an array of POST bodies without
// defaults, but with ids and times, so that DecodeSet returns the same set. The
// secrets are encrypted by seal.
func EncodeSet(set []Endpoint, seal SecretFunc) ([]byte, error) {
	docs := make([]Document, len(set))
	for i, e := range set {
		d, err := sealed(e, seal)
		if err != nil {
			return nil, err
		}
		docs[i] = d
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	if err := out.Encode(docs); err != nil {
		return nil, err
	}
	if n := b.Len(); n > MaxSetBytes {
		return nil, ValidationErrors{{
			Message: fmt.Sprintf("%d endpoints would have %d MiB, and there may be %d", len(set), n>>20, MaxSetBytes>>20), Conflict: true,
		}}
	}
	return b.Bytes(), nil
}

func sealed(e Endpoint, seal SecretFunc) (_ Document, err error) {
	shown := e.withoutDefaults()
	shown.LastUpdated = e.LastUpdated.UTC()
	if seal != nil {
		boundTo := e.boundTo()
		shown.secrets(func(_ string, s *string) {
			if err == nil {
				*s, err = seal(*s, boundTo)
			}
		})
	}
	if err != nil {
		return Document{}, fmt.Errorf("encrypting the secrets of %s: %w", e, err)
	}
	return Document(shown), nil
}
