package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// newCertificate writes a self-signed certificate and its key, and returns the pool
// that trusts it.
func newCertificate(t *testing.T, certFile, keyFile string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "twinegress"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	write(t, certFile, certPEM)
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pool
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A new certificate is served without a restart, and one that can't be used
// changes nothing.
func TestCertificateIsReplaced(t *testing.T) {
	certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	if _, err := serverTLS(certFile, keyFile, zap.NewNop()); err == nil {
		t.Error("a certificate that is not there was taken")
	}
	first := newCertificate(t, certFile, keyFile)
	l, err := listen(t.Context(), "api.listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.ErrorLevel)
	if l.tls, err = serverTLS(certFile, keyFile, zap.New(core)); err != nil {
		t.Fatal(err)
	}
	l.serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }), zap.NewNop())
	defer func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	}()
	get := func(trust *x509.CertPool) (string, error) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		response, err := (&http.Client{Transport: transport}).Get("https://" + l.address())
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	if proto, err := get(first); err != nil || proto != "HTTP/2.0" {
		t.Fatalf("%s, %v", proto, err)
	}

	second := newCertificate(t, certFile, keyFile)
	eventually(t, "the second certificate is served", func() bool { _, err := get(second); return err == nil })
	if _, err := get(first); err == nil {
		t.Error("the first is still served")
	}

	write(t, keyFile, []byte("half of a k"))
	eventually(t, "the broken one is looked at", func() bool {
		if _, err := get(second); err != nil {
			t.Errorf("with a broken replacement: %v", err)
		}
		return logs.FilterMessageSnippet("can't be used").Len() > 0
	})
	third := newCertificate(t, certFile, keyFile)
	eventually(t, "the third certificate is served", func() bool { _, err := get(third); return err == nil })
}
