// Package kafka builds the connection options that the consumer, the
// dead-letter producer and the store of the endpoints share.
package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"

	"twinegress/internal/config"
	"twinegress/internal/file"
)

// Logger adapts a zap logger for the clients' warnings.
func Logger(log *zap.Logger) kgo.Logger {
	return kzap.New(log.Named("kafka"), kzap.Level(kgo.LogLevelWarn))
}

// Connect returns the client options for the brokers, TLS and SASL of a
// validated configuration. It reads the certificate files and fails without a
// password. The clients' warnings, such as that no broker answers, go to log.
func Connect(c config.Ingest, log *zap.Logger) ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("twinegress"),
		kgo.WithLogger(Logger(log)),
	}
	if c.TLS.Enabled {
		t, err := tlsConfig(c.TLS)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	if c.SASL.Mechanism != "" {
		if _, err := password(c.SASL); err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(saslMechanism(c.SASL)))
	}
	return opts, nil
}

func tlsConfig(c config.TLS) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		roots, err := Roots(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ingest.tls.caFile: %w", err)
		}
		t.RootCAs = roots
	}
	if c.CertFile != "" {
		pair, err := file.KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("ingest.tls.certFile, ingest.tls.keyFile: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// Roots returns the system's root certificates and those of a PEM file.
func Roots(path string) (*x509.CertPool, error) {
	pem, err := file.Read(path)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // a static image may have no certificates
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New(path + " holds no PEM certificate")
	}
	return roots, nil
}

// saslMechanism returns a mechanism that reads the password at each login, one
// per connection: a new password or bearer token in a file needs no restart.
func saslMechanism(c config.SASL) sasl.Mechanism {
	login := func(context.Context) (scram.Auth, error) {
		pass, err := password(c)
		return scram.Auth{User: c.Username, Pass: pass}, err
	}
	switch c.Mechanism {
	case config.SASLPlain:
		return plain.Plain(func(context.Context) (plain.Auth, error) {
			pass, err := password(c)
			return plain.Auth{User: c.Username, Pass: pass}, err
		})
	case config.SASLScram256:
		return scram.Sha256(login)
	case config.SASLScram512:
		return scram.Sha512(login)
	case config.SASLOAuthBearer:
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := password(c)
			return oauth.Auth{Token: token}, err
		})
	}
	return nil
}

// password returns the configured password, or the file's without the line
// break that editors and echo append.
func password(c config.SASL) (string, error) {
	if c.PasswordFile == "" {
		return c.Password.Reveal(), nil
	}
	data, err := file.Read(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("ingest.sasl.passwordFile: %w", err)
	}
	pass := strings.TrimRight(string(data), "\r\n")
	if pass == "" {
		return "", errors.New("ingest.sasl.passwordFile: " + c.PasswordFile + " is empty")
	}
	return pass, nil
}
