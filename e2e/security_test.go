//go:build integration

package e2e

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/e2e/env"
	"twinegress/internal/certtest"
	"twinegress/internal/kafkatest"
)

// certificates writes broker.pem and client.pem, each both a certificate and its
// key in one file, as Kafka wants them, and ca.pem, which trusts both, and
// returns their directory.
func certificates(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var trusted []byte
	for _, who := range []string{"broker", "client"} {
		certFile, keyFile := filepath.Join(dir, who+".crt"), filepath.Join(dir, who+".key")
		certtest.Write(t, certFile, keyFile)
		cert, certErr := os.ReadFile(certFile)
		key, keyErr := os.ReadFile(keyFile)
		both := os.WriteFile(filepath.Join(dir, who+".pem"), slices.Concat(key, cert), 0o600)
		if err := errors.Join(certErr, keyErr, both); err != nil {
			t.Fatal(err)
		}
		trusted = append(trusted, cert...)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), trusted, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Every way of logging in that the configuration knows, over TLS.
func TestSecurity(t *testing.T) {
	dir := certificates(t)
	const jaas = "org.apache.kafka.common.security."
	properties := quick()
	maps.Copy(properties, map[string]string{
		"ssl.keystore.type": "PEM", "ssl.keystore.location": filepath.Join(dir, "broker.pem"),
		"ssl.truststore.type": "PEM", "ssl.truststore.location": filepath.Join(dir, "ca.pem"),
		"listener.name.ssl.ssl.client.auth":                                     "required",
		"sasl.enabled.mechanisms":                                               "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
		"listener.name.sasl_ssl.plain.sasl.jaas.config":                         jaas + `plain.PlainLoginModule required user_e2e="plain-secret";`,
		"listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config":                 jaas + `scram.ScramLoginModule required;`,
		"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config":                 jaas + `scram.ScramLoginModule required;`,
		"listener.name.sasl_ssl.oauthbearer.sasl.jaas.config":                   jaas + `oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";`,
		"listener.name.sasl_ssl.oauthbearer.sasl.server.callback.handler.class": jaas + "oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler",
	})
	c := ownCluster(t, kafkatest.Config{
		Listeners: []string{"SASL_SSL", "SSL"}, Properties: properties,
		Format: []string{
			"--add-scram", "SCRAM-SHA-256=[name=e2e,password=scram-secret]",
			"--add-scram", "SCRAM-SHA-512=[name=e2e,password=scram-secret]",
		},
	})
	// An unsecured token, as only tests accept them: {"alg":"none"}, sub e2e, far in the future.
	const token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJlMmUiLCJpYXQiOjE3MDAwMDAwMDAsImV4cCI6NDEwMjQ0NDgwMH0."
	ca := filepath.Join(dir, "ca.pem")
	login := func(mechanism, user, password string) env.Settings {
		return env.Settings{
			"ingest.brokers": c.ListenerAddrs("SASL_SSL")[0], "ingest.tls.enabled": "true", "ingest.tls.caFile": ca,
			"ingest.sasl.mechanism": mechanism, "ingest.sasl.username": user, "ingest.sasl.password": password,
		}
	}
	tests := map[string]struct {
		env.Settings
		refused string // what the log says; "": it works
	}{
		"PLAIN":          {login("PLAIN", "e2e", "plain-secret"), ""},
		"SCRAM-SHA-256":  {login("SCRAM-SHA-256", "e2e", "scram-secret"), ""},
		"SCRAM-SHA-512":  {login("SCRAM-SHA-512", "e2e", "scram-secret"), ""},
		"OAUTHBEARER":    {login("OAUTHBEARER", "", token), ""},
		"wrong password": {login("SCRAM-SHA-512", "e2e", "guessed-it"), "SASL_AUTHENTICATION_FAILED"},
		"client certificate": {env.Settings{
			"ingest.brokers": c.ListenerAddrs("SSL")[0], "ingest.tls.enabled": "true", "ingest.tls.caFile": ca,
			"ingest.tls.certFile": filepath.Join(dir, "client.pem"), "ingest.tls.keyFile": filepath.Join(dir, "client.pem"),
		}, ""},
		"no client certificate": {env.Settings{
			"ingest.brokers": c.ListenerAddrs("SSL")[0], "ingest.tls.enabled": "true", "ingest.tls.caFile": ca,
		}, "bad certificate"},
		"unknown authority": {env.Settings{
			"ingest.brokers": c.ListenerAddrs("SSL")[0], "ingest.tls.enabled": "true",
		}, "certificate signed by unknown authority"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, env.Config{Brokers: c.Addrs(), Partitions: 1})
			h.Produce(&kgo.Record{Value: env.Event(0, 0)})
			r := h.replica("one", test.Settings)
			r.start()
			if test.refused == "" {
				r.awaitReady()
				h.allCommitted(r)
				return
			}
			env.Eventually(t, "it says "+test.refused, func() bool { return r.logged(test.refused) })
			if r.logged("guessed-it") {
				t.Error("the log has the password")
			}
		})
	}
}
