package server

import (
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"twinegress/internal/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A listener that could serve nothing is an error at the start.
func TestTLS(t *testing.T) {
	certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	if _, err := TLS(certFile, keyFile, zap.NewNop()); err == nil {
		t.Error("a certificate that does not exist is accepted")
	}
	certtest.Write(t, certFile, keyFile)
	config, err := TLS(certFile, keyFile, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if pair, err := config.GetCertificate(nil); err != nil || pair.Leaf.Subject.CommonName != "twinegress" {
		t.Errorf("the listener serves %+v, %v", pair, err)
	}
}
