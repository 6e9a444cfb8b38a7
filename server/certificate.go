package server

import (
	"crypto/tls"

	"go.uber.org/zap"

	"twinegress/internal/certfile"
)

// TLS returns the configuration of a server with that certificate. Invalid files
// are an error now; when they are invalid later, the last valid pair stays in use.
func TLS(certFile, keyFile string, log *zap.Logger) (*tls.Config, error) {
	pair, err := certfile.NewPair(certFile, keyFile, log)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.Certificate(), nil },
	}, nil
}
