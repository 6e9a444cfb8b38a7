package endpoints

import (
	"encoding/json"
	"strings"
)

// Encode writes one endpoint: a POST body with its id and its time, the secrets
// encrypted.
func (enc *Encoder) Encode(e Endpoint) ([]byte, error) {
	d, err := enc.document(e, make(sealedSecrets))
	if err != nil {
		return nil, err
	}
	return json.Marshal(d)
}

// DecodeStored reads what Encode wrote. stale says that a secret in it is
// not encrypted with the newest key, or not at all. What is wrong comes back as
// ValidationErrors; see ValidationErrors.NotAnEndpoint.
func DecodeStored(data []byte, k *Keyring, o Options) (e Endpoint, stale bool, err error) {
	if err := checkSyntax(data); err != nil {
		return Endpoint{}, false, err
	}
	e, known := decodeObject(data, true)
	for _, s := range []string{e.ConnectionString, e.SecondaryConnectionString} {
		stale = stale || k != nil && s != "" && !strings.HasPrefix(s, sealedPrefix)
	}
	set, all := []Endpoint{e}, []ValidationErrors{known}
	sealed := k.openAll(set, all)
	e = set[0].canonical()
	if err := all[0].and(e.violations(o)).err(); err != nil {
		return Endpoint{}, false, err
	}
	return e, stale || sealed.stale(), nil
}
