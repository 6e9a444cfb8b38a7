package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
)

// The keys that no output may show: base64, with the characters that other
// encodings change.
var secretKeys = map[string]emulator.KeyPair{
	"namespace": {Primary: "+/pr1maryNamesp4ceKey+/AAAAAAAAAAAAAAAAAAAA=", Secondary: "+/sec0ndaryNamesp4ceKey+/EEEEEEEEEEEEEEEEEE="},
	"grid":      {Primary: "+/pr1maryGr1dKey+/IIIIIIIIIIIIIIIIIIIIIIIII=", Secondary: "+/sec0ndaryGr1dKey+/MMMMMMMMMMMMMMMMMMMMMMM="},
}

// secretExpiry is when the signatures end to be secrets: in 2100.
const secretExpiry = "4102444800"

// secretForms are what no output may show, by name, in every form that a library
// may give them in a message.
type secretForms map[string]string

// add adds a secret that is base64.
func (s secretForms) add(name, secret string) {
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
		panic(err)
	}
	s[name+", decoded"] = string(raw)
	s[name+", hex"] = hex.EncodeToString(raw)
	s[name+", hex of the text"] = hex.EncodeToString([]byte(secret))
}

// signature is that of a token which a key signed: a secret while it is valid.
var signature = regexp.MustCompile(`(?i)sig(nature)?(=|%3d|":")[^*&"\s\\]{8}`)

func (s secretForms) check(t *testing.T, where, text string) {
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

// secretWorld is a world whose keys are known, with an endpoint for each way
// to hold a secret.
type secretWorld struct {
	*world
	secrets secretForms
	cfg     config.Config
	set     []endpoints.Endpoint
}

func newSecretWorld(t *testing.T) secretWorld {
	t.Helper()
	grid := secretKeys["grid"]
	w := secretWorld{secrets: secretForms{"the API's token": apiToken}, world: newWorldFor(t, 2, emulator.Config{
		Keys: secretKeys["namespace"], Hubs: []emulator.Hub{{Name: "hub", Partitions: 2}}, Topics: []emulator.Topic{{Name: "topic"}},
		EventGridTopics: []emulator.GridTopic{{Name: "grid", Keys: &grid}},
	})}
	for owner, pair := range secretKeys {
		w.secrets.add("the primary key of the "+owner, pair.Primary)
		w.secrets.add("the secondary key of the "+owner, pair.Secondary)
	}
	w.cfg = withAPI(w.config())
	w.cfg.Send.Timeout, w.cfg.Send.Attempts = 400*time.Millisecond, 2
	w.cfg.Backoff.Initial, w.cfg.Backoff.Max = 20*time.Millisecond, 50*time.Millisecond
	w.set = []endpoints.Endpoint{
		w.hub("SensorChange"), w.topic("SensorChange"), w.grid("SensorChange"),
		w.bySignature(w.hub("SensorChange")), w.bySignature(w.topic("SensorChange")),
	}
	return w
}

// bySignature gives an endpoint signatures in the place of its keys.
func (w secretWorld) bySignature(e endpoints.Endpoint) endpoints.Endpoint {
	e.Name += " by signature"
	host := w.services.AMQPAddr()
	for s, key := range map[*string]string{
		&e.ConnectionString:          secretKeys["namespace"].Primary,
		&e.SecondaryConnectionString: secretKeys["namespace"].Secondary,
	} {
		resource := url.QueryEscape(host + "/" + e.Path)
		h := hmac.New(sha256.New, []byte(key))
		h.Write([]byte(resource + "\n" + secretExpiry))
		sig := base64.StdEncoding.EncodeToString(h.Sum(nil))
		w.secrets.add("a signature for "+e.Path, sig)
		*s = "Endpoint=sb://" + host + ";SharedAccessSignature=SharedAccessSignature sr=" + resource + "&sig=" + url.QueryEscape(sig) +
			"&se=" + secretExpiry + "&skn=" + emulator.DefaultPolicy + ";UseDevelopmentEmulator=true"
	}
	return e
}
