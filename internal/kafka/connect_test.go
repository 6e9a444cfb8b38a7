package kafka

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/certfile"
	"twinegress/internal/certtest"
	"twinegress/internal/config"
)

// certificate creates a self-signed certificate for 127.0.0.1 and writes it and
// its key as PEM files.
func certificate(t *testing.T) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	certtest.Write(t, certFile, keyFile)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	return pair, certFile, keyFile
}

func TestConnect(t *testing.T) {
	server, serverFile, _ := certificate(t)
	_, clientFile, clientKey := certificate(t)
	clients, err := certfile.ReadRoots(clientFile)
	if err != nil {
		t.Fatal(err)
	}
	serverTLS := &tls.Config{Certificates: []tls.Certificate{server}, MinVersion: tls.VersionTLS12}
	mutualTLS := serverTLS.Clone()
	mutualTLS.ClientAuth, mutualTLS.ClientCAs = tls.RequireAndVerifyClientCert, clients
	file := func(content string) string {
		name := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	login := func(mechanism, password string) config.SASL {
		return config.SASL{Mechanism: mechanism, Username: "user", Password: config.Secret(password)}
	}
	user := func(mechanism string) []kfake.Opt {
		return []kfake.Opt{kfake.EnableSASL(), kfake.Superuser(mechanism, "user", "pass")}
	}
	trusted := config.TLS{Enabled: true, CAFile: serverFile}
	cases := map[string]struct {
		broker []kfake.Opt
		ingest config.Ingest
		fails  bool
	}{
		"plain text":             {},
		"SASL PLAIN":             {user("PLAIN"), config.Ingest{SASL: login(config.SASLPlain, "pass")}, false},
		"SASL SCRAM-SHA-256":     {user("SCRAM-SHA-256"), config.Ingest{SASL: login(config.SASLScram256, "pass")}, false},
		"SASL SCRAM-SHA-512":     {user("SCRAM-SHA-512"), config.Ingest{SASL: login(config.SASLScram512, "pass")}, false},
		"a wrong password":       {user("PLAIN"), config.Ingest{SASL: login(config.SASLPlain, "wrong")}, true},
		"a password of a file":   {user("PLAIN"), config.Ingest{SASL: config.SASL{Mechanism: config.SASLPlain, Username: "user", PasswordFile: file("pass\n")}}, false},
		"a line break behind it": {user("PLAIN"), config.Ingest{SASL: login(config.SASLPlain, "pass\r\n")}, false},
		"a byte order mark":      {user("PLAIN"), config.Ingest{SASL: config.SASL{Mechanism: config.SASLPlain, Username: "user", PasswordFile: file("\ufeffpass\n")}}, false},
		"TLS":                    {[]kfake.Opt{kfake.TLS(serverTLS)}, config.Ingest{TLS: trusted}, false},
		"TLS that isn't trusted": {[]kfake.Opt{kfake.TLS(serverTLS)}, config.Ingest{TLS: config.TLS{Enabled: true}}, true},
		"a client certificate": {
			[]kfake.Opt{kfake.TLS(mutualTLS)},
			config.Ingest{TLS: config.TLS{Enabled: true, CAFile: serverFile, CertFile: clientFile, KeyFile: clientKey}},
			false,
		},
		"no client certificate": {[]kfake.Opt{kfake.TLS(mutualTLS)}, config.Ingest{TLS: trusted}, true},
		"SASL over TLS": {
			append(user("PLAIN"), kfake.TLS(serverTLS)), config.Ingest{TLS: trusted, SASL: login(config.SASLPlain, "pass")}, false,
		},
	}
	for name, tt := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broker, err := kfake.NewCluster(append(tt.broker, kfake.NumBrokers(1))...)
			if err != nil {
				t.Fatal(err)
			}
			defer broker.Close()
			tt.ingest.Brokers = broker.ListenAddrs()
			opts, err := Connect(tt.ingest, zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			client, err := kgo.NewClient(append(opts, kgo.RequestRetries(0))...)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if err := client.Ping(ctx); (err != nil) != tt.fails {
				t.Errorf("connecting: %v", err)
			}
		})
	}
}

// A connection is made with the certificates that the files have by then.
func TestCertificatesThatAreRenewed(t *testing.T) {
	dir := t.TempDir()
	caFile, caKey := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem") // the broker's own
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	var broker tls.Config
	renew := func() {
		certtest.Write(t, caFile, caKey)
		clients := certtest.Write(t, certFile, keyFile)
		for _, name := range []string{caFile, certFile} { // two writes may fall into one tick of the file system's clock
			if err := os.Chtimes(name, time.Time{}, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
		pair, err := tls.LoadX509KeyPair(caFile, caKey)
		if err != nil {
			t.Fatal(err)
		}
		broker = tls.Config{
			Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, MinVersion: tls.VersionTLS12,
		}
	}
	certtest.Write(t, caFile, caKey)
	certtest.Write(t, certFile, keyFile)
	ingest := config.Ingest{TLS: config.TLS{Enabled: true, CAFile: caFile, CertFile: certFile, KeyFile: keyFile}}
	dial, err := dialTLS(ingest.TLS, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	renew()
	cluster, err := kfake.NewCluster(kfake.TLS(&broker), kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.Dialer(dial), kgo.RequestRetries(0))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Ping(t.Context()); err != nil {
		t.Errorf("connecting after both certificates were renewed: %v", err)
	}
}

// A connection logs in with the file's current content.
func TestPasswordFileThatChanges(t *testing.T) {
	name := filepath.Join(t.TempDir(), "password")
	for mechanism, sends := range map[string]string{
		config.SASLPlain: "\x00user\x00%s", config.SASLOAuthBearer: "n,,\x01auth=Bearer %s\x01\x01",
	} {
		m := saslMechanism(config.SASL{Mechanism: mechanism, Username: "user", PasswordFile: name})
		for _, pass := range []string{"first", "second"} {
			if err := os.WriteFile(name, []byte(pass+"\r\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, first, err := m.Authenticate(t.Context(), "broker")
			if want := strings.ReplaceAll(sends, "%s", pass); err != nil || string(first) != want {
				t.Errorf("%s sends %q, %v; want %q", mechanism, first, err, want)
			}
		}
	}
	if err := os.WriteFile(name, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{name: "is empty", "/does/not/exist": "no such file"} {
		for _, mechanism := range []string{config.SASLPlain, config.SASLScram256, config.SASLScram512, config.SASLOAuthBearer} {
			c := config.SASL{Mechanism: mechanism, Username: "user", PasswordFile: file}
			if _, err := Connect(config.Ingest{SASL: c}, zap.NewNop()); err == nil || !strings.Contains(err.Error(), "ingest.sasl.passwordFile: ") {
				t.Errorf("%s with %s: %v", mechanism, file, err)
			}
			if _, _, err := saslMechanism(c).Authenticate(t.Context(), "broker"); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s with %s: %v, want %q", mechanism, file, err, want)
			}
		}
	}
}

// The embedded broker doesn't implement OAUTHBEARER. The library encodes the
// login, so the test checks that the mechanism is chosen and has the token.
func TestOAuthBearer(t *testing.T) {
	m := saslMechanism(config.SASL{Mechanism: config.SASLOAuthBearer, Password: "token"})
	if m == nil || m.Name() != "OAUTHBEARER" {
		t.Fatalf("the mechanism is %v", m)
	}
	_, first, err := m.Authenticate(t.Context(), "broker")
	if err != nil || !strings.Contains(string(first), "auth=Bearer token") {
		t.Errorf("it sends %q, %v", first, err)
	}
}

func TestCertificateFilesThatAreWrong(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tls := range map[string]config.TLS{
		"ingest.tls.caFile":   {Enabled: true, CAFile: empty},
		"none.pem":            {Enabled: true, CAFile: "none.pem"},
		"ingest.tls.certFile": {Enabled: true, CertFile: empty, KeyFile: empty},
	} {
		if _, err := Connect(config.Ingest{TLS: tls}, zap.NewNop()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: %v, want an error that names %s", tls, err, name)
		}
	}
}
