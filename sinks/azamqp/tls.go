package azamqp

import (
	"crypto/tls"
	"crypto/x509"
	"net"

	"twinegress/endpoints"
)

// TLSConfig is what an SDK's client needs to trust further roots; nil, the
// SDK's default, without any. The SDKs would check the certificate against
// host:port where the connection string names a port, so the name is set here.
func TLSConfig(roots *x509.CertPool, connection endpoints.ConnectionString) *tls.Config {
	if roots == nil {
		return nil
	}
	host := connection.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}
}
