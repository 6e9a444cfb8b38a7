package certfile

import (
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/internal/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A new certificate is used without a restart; an invalid one changes nothing.
func TestPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		certFile, keyFile := filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
		if _, err := NewPair(certFile, keyFile, zap.NewNop()); err == nil {
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
		pair, err := NewPair(certFile, keyFile, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		used := func(trust *x509.CertPool) bool {
			t.Helper()
			_, err := pair.Certificate().Leaf.Verify(x509.VerifyOptions{Roots: trust})
			return err == nil
		}
		if !used(first) {
			t.Error("the first certificate is not used")
		}

		time.Sleep(checkInterval)
		second := replace()
		if !used(second) || used(first) {
			t.Error("the second certificate is not used")
		}

		time.Sleep(checkInterval)
		if err := os.WriteFile(keyFile, []byte("half of a k"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !used(second) || logs.FilterMessageSnippet("can't be used").Len() != 1 {
			t.Errorf("with a broken replacement the second is not used, or nothing is logged: %v", logs.All())
		}

		third := replace()
		if used(third) {
			t.Error("the files are read again at once, at each connection of a burst")
		}
		time.Sleep(checkInterval)
		if !used(third) {
			t.Error("the third certificate is not used")
		}
	})
}

// The same of root certificates: each call has those of the file's last good state.
func TestRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		caFile, keyFile := filepath.Join(t.TempDir(), "ca.pem"), filepath.Join(t.TempDir(), "key.pem")
		if _, err := NewRoots(caFile, zap.NewNop()); err == nil || !strings.Contains(err.Error(), caFile) {
			t.Errorf("a file that does not exist: %v", err)
		}
		write := func() *x509.Certificate {
			certtest.Write(t, caFile, keyFile)
			if err := os.Chtimes(caFile, time.Time{}, time.Now()); err != nil {
				t.Fatal(err)
			}
			pair, err := tls.LoadX509KeyPair(caFile, keyFile)
			if err != nil {
				t.Fatal(err)
			}
			return pair.Leaf
		}
		first := write()
		core, logs := observer.New(zap.ErrorLevel)
		roots, err := NewRoots(caFile, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		trusts := func(c *x509.Certificate) bool {
			_, err := c.Verify(x509.VerifyOptions{Roots: roots.Pool()})
			return err == nil
		}
		if !trusts(first) {
			t.Error("the first authority is not trusted")
		}
		time.Sleep(checkInterval)
		second := write()
		if !trusts(second) || trusts(first) {
			t.Error("the second authority is not trusted, or the first one still is")
		}
		time.Sleep(checkInterval)
		if err := os.WriteFile(caFile, []byte("half of a c"), 0o600); err != nil {
			t.Fatal(err)
		}
		if !trusts(second) || logs.FilterMessageSnippet("can't be used").Len() != 1 {
			t.Errorf("with a broken replacement the second is not trusted, or nothing is logged: %v", logs.All())
		}
	})
}

// A file system that doesn't answer holds up one connection, not all.
func TestNobodyWaitsForAnothersRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "file")
		answers := make(chan int, 1)
		answers <- 1
		r, err := newReloaded(zap.NewNop(), func() (*int, error) { v := <-answers; return &v, nil }, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(checkInterval)
		hangs := make(chan int)
		go func() { hangs <- *r.get() }()
		synctest.Wait()
		if got := *r.get(); got != 1 {
			t.Errorf("beside a read that hangs there is %d, want the last good 1", got)
		}
		answers <- 2
		if got := <-hangs; got != 2 {
			t.Errorf("the read that hung returned %d, want 2", got)
		}
	})
}

// What could not be read for a cause that leaves no trace in the files, such as a
// missing right, is read once that is gone, and logged once.
func TestReadAgainAfterFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "file")
		value, failure := 1, error(nil)
		core, logs := observer.New(zap.ErrorLevel)
		r, err := newReloaded(zap.New(core), func() (*int, error) { v := value; return &v, failure }, name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("new"), 0o600); err != nil {
			t.Fatal(err)
		}
		value, failure = 2, fs.ErrPermission
		for range 3 {
			time.Sleep(checkInterval)
			if got := *r.get(); got != 1 {
				t.Errorf("what can't be read is %d, want the last good 1", got)
			}
		}
		failure = nil
		time.Sleep(checkInterval)
		if got := *r.get(); got != 2 {
			t.Errorf("once it can be read it is %d, want 2", got)
		}
		if n := logs.Len(); n != 1 {
			t.Errorf("one failure was logged %d times", n)
		}
	})
}
