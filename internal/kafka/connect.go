// Package kafka builds the connection options that the consumer, the
// dead-letter producer and the store of the endpoints share.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"go.uber.org/zap"

	"twinegress/internal/certfile"
	"twinegress/internal/config"
	"twinegress/internal/file"
)

// Connect returns the client options for the brokers, TLS and SASL of a
// validated configuration. It fails without a password or valid certificate files;
// both are read again later, when they have changed. The clients' warnings, such as that no broker answers, go to log.
func Connect(c config.Ingest, log *zap.Logger) ([]kgo.Opt, error) {
	opts := []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID("twinegress"),
		kgo.WithLogger(Logger(log)),
	}
	if c.TLS.Enabled {
		dial, err := dialTLS(c.TLS, log)
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.Dialer(dial))
	}
	if c.SASL.Mechanism != "" {
		if _, err := password(c.SASL); err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(saslMechanism(c.SASL)))
	}
	return opts, nil
}

// dialTimeout bounds connecting and the TLS handshake, each: the client's default.
const dialTimeout = 10 * time.Second

// dialTLS returns the function that connects with TLS. It takes the certificates
// of that moment (kgo.DialTLSConfig would take those of the start): the brokers
// close connections now and then, and refuse a certificate that has expired.
func dialTLS(c config.TLS, log *zap.Logger) (func(ctx context.Context, network, host string) (net.Conn, error), error) {
	var roots *certfile.Roots
	var pair *certfile.Pair
	if c.CAFile != "" {
		r, err := certfile.NewRoots(c.CAFile, log)
		if err != nil {
			return nil, fmt.Errorf("ingest.tls.caFile: %w", err)
		}
		roots = &r
	}
	if c.CertFile != "" {
		p, err := certfile.NewPair(c.CertFile, c.KeyFile, log)
		if err != nil {
			return nil, fmt.Errorf("ingest.tls.certFile, ingest.tls.keyFile: %w", err)
		}
		pair = &p
	}
	return func(ctx context.Context, network, host string) (net.Conn, error) {
		t := &tls.Config{MinVersion: tls.VersionTLS12}
		if roots != nil {
			t.RootCAs = roots.Pool()
		}
		if pair != nil {
			t.Certificates = []tls.Certificate{*pair.Certificate()}
		}
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: t}
		return d.DialContext(ctx, network, host)
	}, nil
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

// password returns the configured password, or the file's, without what is not
// part of it: the line break that editors, echo and a variable set from a file
// append, and the byte order mark of some editors.
func password(c config.SASL) (string, error) {
	if c.PasswordFile == "" {
		return strings.TrimRight(c.Password.Reveal(), "\r\n"), nil
	}
	data, err := file.Read(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("ingest.sasl.passwordFile: %w", err)
	}
	pass := strings.TrimRight(strings.TrimPrefix(string(data), "\ufeff"), "\r\n")
	if pass == "" {
		return "", errors.New("ingest.sasl.passwordFile: " + c.PasswordFile + " is empty")
	}
	return pass, nil
}
