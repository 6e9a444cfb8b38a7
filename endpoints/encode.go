package endpoints

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Document is an endpoint as JSON holds it. It has none of an Endpoint's
// methods, those that mask its secrets among them.
type Document Endpoint

// Document returns e as it is shown, with its secrets masked. It isn't a valid
// endpoint any more.
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

// MarshalJSON writes the fields as the Management API names them, with the
// secrets masked: a key leaves this process in no other way than to its
// service or, where that is meant, its store.
func (e Endpoint) MarshalJSON() ([]byte, error) { return json.Marshal(e.Document()) }

// SecretFunc encrypts a secret for a store, or decrypts it. boundTo is the host
// that the secret may be sent to, if it doesn't say so itself. A nil SecretFunc
// leaves secrets as they are. See package secrets.
type SecretFunc func(s, boundTo string) (string, error)

// Encode returns one endpoint as a store keeps it: a POST body with its id and
// its time, the secrets encrypted by seal.
func Encode(e Endpoint, seal SecretFunc) ([]byte, error) {
	d, err := sealed(e, seal)
	if err != nil {
		return nil, err
	}
	return json.Marshal(d)
}

// EncodeSet returns a set as people would write it: an array of POST bodies,
// with the ids and times that make it the same set when it is read again, and
// without what is the default anyway. The secrets are encrypted by seal.
func EncodeSet(set []Endpoint, seal SecretFunc) ([]byte, error) {
	docs := make([]Document, len(set))
	for i, e := range set {
		d, err := sealed(e.withoutDefaults(), seal)
		if err != nil {
			return nil, err
		}
		docs[i] = d
	}
	var b bytes.Buffer
	out := json.NewEncoder(&b)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	err := out.Encode(docs)
	return b.Bytes(), err
}

func sealed(e Endpoint, seal SecretFunc) (_ Document, err error) {
	shown := e
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
