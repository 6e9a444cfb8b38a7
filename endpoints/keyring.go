package endpoints

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"filippo.io/age"
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

// sealedSecrets are the sealed strings of a set in force. Sealing is slow, and
// never gives the same string twice: what didn't change is written as it was.
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

func (k *Keyring) seal(secret, place string) (string, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, k.newest)
	if err != nil {
		return "", err
	}
	if _, err := io.WriteString(w, place+"\x00"+secret); err != nil {
		return "", err
	}
	if err := w.Close(); err != nil {
		return "", err
	}
	return sealedPrefix + base64.StdEncoding.EncodeToString(b.Bytes()), nil
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
	data, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, sealedPrefix))
	if err != nil {
		return opened{}, errNotSealed
	}
	for i, id := range k.identities {
		r, err := age.Decrypt(bytes.NewReader(data), id)
		if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok {
			continue
		}
		if err != nil {
			return opened{}, errNotSealed
		}
		plain, err := io.ReadAll(r)
		place, secret, ok := strings.Cut(string(plain), "\x00")
		if err != nil || !ok {
			return opened{}, errNotSealed
		}
		return opened{secret: secret, place: place, newest: i == 0}, nil
	}
	return opened{}, errNoKey
}

// openAll opens what is sealed in the endpoints of a set, and adds to known
// what can't be. before is what was open already; what it returns takes its
// place.
func (k *Keyring) openAll(set []Endpoint, known []ValidationErrors, before sealedSecrets) sealedSecrets {
	type job struct {
		i     int // of the endpoint
		field string
		s     *string
		open  opened
		err   error
	}
	var jobs []job
	for i := range set {
		e := &set[i]
		for field, s := range map[string]*string{
			"connectionString": &e.ConnectionString, "secondaryConnectionString": &e.SecondaryConnectionString,
		} {
			if strings.HasPrefix(*s, sealedPrefix) {
				jobs = append(jobs, job{i: i, field: field, s: s})
			}
		}
	}
	// Each takes a fraction of a millisecond, which is seconds for thousands.
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(jobs)) {
		workers.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(jobs) {
					return
				}
				j := &jobs[n]
				var ok bool
				if j.open, ok = before[*j.s]; !ok {
					j.open, j.err = k.open(*j.s)
				}
			}
		})
	}
	workers.Wait()
	if len(jobs) == 0 {
		return nil
	}
	after := make(sealedSecrets, len(jobs))
	for _, j := range jobs {
		err := j.err
		if err == nil && j.open.place != set[j.i].canonical().place() {
			err = errElsewhere
		}
		if err != nil {
			known[j.i].add(j.field, err.Error())
			continue
		}
		after[*j.s] = j.open
		*j.s = j.open.secret
	}
	return after
}

// Encoder writes endpoints as a store keeps them. What it has encrypted once
// it doesn't encrypt again, as long as it lives.
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
