package server

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A new certificate is served without a restart; an invalid one changes nothing.
func TestCertificateIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
		if _, err := TLS(certFile, keyFile, zap.NewNop()); err == nil {
			t.Error("a certificate that does not exist is accepted")
		}
		// The file's time is set explicitly: two writes may fall into one tick of
		// the file system's clock.
		replace := func() *x509.CertPool {
			pool := certtest.Write(t, certFile, keyFile)
			if err := os.Chtimes(certFile, time.Time{}, time.Now()); err != nil {
				t.Fatal(err)
			}
			return pool
		}
		first := replace()
		core, logs := observer.New(zap.ErrorLevel)
		config, err := TLS(certFile, keyFile, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		served := func(trust *x509.CertPool) bool {
			t.Helper()
			pair, err := config.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: trust})
			return err == nil
		}
		if !served(first) {
			t.Error("the first certificate is not served")
		}

		time.Sleep(checkInterval)
		second := replace()
		if !served(second) || served(first) {
			t.Error("the second certificate is not served")
		}

		time.Sleep(checkInterval)
		if err := os.WriteFile(keyFile, []byte("half of a k"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !served(second) || logs.FilterMessageSnippet("can't be used").Len() != 1 {
			t.Errorf("with a broken replacement the second is not served, or nothing is logged: %v", logs.All())
		}

		third := replace()
		if served(third) {
			t.Error("the files are read again at once, at each connection of a burst")
		}
		time.Sleep(checkInterval)
		if !served(third) {
			t.Error("the third certificate is not served")
		}
	})
}
