package env

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"twinegress/internal/emulator"
)

// SecretKeys are the keys that no output may show: base64, with the characters
// that other encodings change.
var SecretKeys = map[string]emulator.KeyPair{
	"namespace": {Primary: "+/pr1maryNamesp4ceKey+/AAAAAAAAAAAAAAAAAAAA=", Secondary: "+/sec0ndaryNamesp4ceKey+/EEEEEEEEEEEEEEEEEE="},
	"grid":      {Primary: "+/pr1maryGr1dKey+/IIIIIIIIIIIIIIIIIIIIIIIII=", Secondary: "+/sec0ndaryGr1dKey+/MMMMMMMMMMMMMMMMMMMMMMM="},
}

// secretExpiry is when the signatures end to be secrets: in 2100.
const secretExpiry = "4102444800"

// Secrets are what no output may show, by name, in every form in which a
// library may put them in a message.
type Secrets map[string]string

// add adds a secret that is base64.
func (s Secrets) add(name, secret string) {
	s[name] = secret
	s[name+", without padding"] = strings.TrimRight(secret, "=")
	s[name+", URL-encoded"] = url.QueryEscape(secret)
	s[name+", as a path"] = url.PathEscape(secret)
	for encoding, e := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
		// Somewhere in a longer text: three alignments, without the
		// characters at either end that depend on the neighbours.
		for shift := range 3 {
			encoded := e.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
			s[name+", "+encoding+" "+string(rune('0'+shift))] = encoded[4 : len(encoded)-4]
		}
	}
	raw, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		panic("BUG: a key that is no base64: " + err.Error())
	}
	s[name+", decoded"] = string(raw)
	s[name+", hex"] = hex.EncodeToString(raw)
	s[name+", hex of the text"] = hex.EncodeToString([]byte(secret))
}

// signature is that of a token which a key signed: a secret while it is valid.
var signature = regexp.MustCompile(`(?i)sig(nature)?(=|%3d|":")[^*&"\s\\]{8}`)

// Check looks for secrets in a text.
func (s Secrets) Check(t testing.TB, where, text string) {
	t.Helper()
	for name, form := range s {
		if i := strings.Index(text, form); i >= 0 {
			t.Errorf("%s shows %s: …%s…", where, name, text[max(0, i-150):min(len(text), i+len(form)+50)])
		}
	}
	if m := signature.FindString(text); m != "" {
		t.Errorf("%s shows a signature: %s", where, m)
	}
}

// WithSecrets makes the keys of the services known, for Config.Services.
func WithSecrets(c *emulator.Config) {
	grid := SecretKeys["grid"]
	c.Keys = SecretKeys["namespace"]
	c.EventGridTopics = []emulator.GridTopic{{Name: "grid", Keys: &grid}}
}

// SecretEndpoints returns an endpoint for each way to hold a secret, and all
// their secrets.
func (e *Env) SecretEndpoints() ([]Endpoint, Secrets) {
	s := Secrets{"the API's token": Token}
	for owner, pair := range SecretKeys {
		s.add("the primary key of the "+owner, pair.Primary)
		s.add("the secondary key of the "+owner, pair.Secondary)
	}
	hub, topic := e.Hub("SensorChange"), e.ServiceBus("SensorChange")
	return []Endpoint{hub, topic, e.Grid("SensorChange"), e.bySignature(hub, s), e.bySignature(topic, s)}, s
}

// bySignature returns an endpoint with signatures in the place of its keys.
func (e *Env) bySignature(ep Endpoint, s Secrets) Endpoint {
	host, path := e.Services.AMQPAddr(), ep.Text("path")
	ep = ep.With("name", ep.Text("name")+" by signature")
	for field, key := range map[string]string{
		"connectionString":          SecretKeys["namespace"].Primary,
		"secondaryConnectionString": SecretKeys["namespace"].Secondary,
	} {
		resource := url.QueryEscape(host + "/" + path)
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(resource + "\n" + secretExpiry))
		sig := base64.StdEncoding.EncodeToString(h.Sum(nil))
		s.add("a signature for "+path+", "+field, sig)
		ep[field] = "Endpoint=sb://" + host + ";SharedAccessSignature=SharedAccessSignature sr=" + resource + "&sig=" + url.QueryEscape(sig) +
			"&se=" + secretExpiry + "&skn=" + emulator.DefaultPolicy + ";UseDevelopmentEmulator=true"
	}
	return ep
}
