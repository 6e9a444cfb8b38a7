// Package certfile keeps certificates that are read from files current: they are
// renewed every few weeks or days, and that must not need a restart. The files are
// looked at when a connection is made, so there is no goroutine.
package certfile

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/file"
)

// checkInterval bounds how often a burst of connections looks at the files.
const checkInterval = time.Second

// Pair is a certificate with its key.
type Pair struct{ *reloaded[tls.Certificate] }

// NewPair reads a certificate and its key, PEM both.
func NewPair(certFile, keyFile string, log *zap.Logger) (Pair, error) {
	r, err := newReloaded(log, func() (*tls.Certificate, error) {
		pair, err := file.KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", certFile, keyFile, err)
		}
		return &pair, nil
	}, certFile, keyFile)
	return Pair{r}, err
}

// Certificate returns the pair of the files' last good state.
func (p Pair) Certificate() *tls.Certificate { return p.get() }

// Roots are the system's root certificates and those of a file.
type Roots struct{ *reloaded[x509.CertPool] }

// NewRoots reads a file of PEM certificates.
func NewRoots(path string, log *zap.Logger) (Roots, error) {
	r, err := newReloaded(log, func() (*x509.CertPool, error) { return ReadRoots(path) }, path)
	return Roots{r}, err
}

// Pool returns the certificates of the file's last good state. It belongs in the
// tls.Config of one connection: one that is kept would keep them.
func (r Roots) Pool() *x509.CertPool { return r.get() }

// ReadRoots returns the system's root certificates and those of a PEM file.
func ReadRoots(path string) (*x509.CertPool, error) {
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

// reloaded is a value that is read from files, and again once they have changed.
// While they are invalid, the last good value stays in use.
type reloaded[T any] struct {
	read  func() (*T, error)
	files []string
	log   *zap.Logger
	value atomic.Pointer[T]

	// mu guards what follows, and is held while files are read: by one connection
	// at a time, for which no other one waits if the file system doesn't answer.
	mu      sync.Mutex
	state   []fileState
	checked time.Time
	failed  string // what is wrong with the files, as it was logged; "": nothing
}

// fileState identifies a version of a file. Kubernetes mounts a secret as a
// link; the time is that of its target.
type fileState struct {
	size    int64
	changed time.Time
}

func newReloaded[T any](log *zap.Logger, read func() (*T, error), files ...string) (*reloaded[T], error) {
	r := &reloaded[T]{read: read, files: files, log: log}
	if err := r.load(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *reloaded[T]) get() *T {
	if r.mu.TryLock() {
		defer r.mu.Unlock()
		if now := time.Now(); now.Sub(r.checked) >= checkInterval {
			r.checked = now
			// What failed is tried again though the files look the same: a right that
			// was missing or a descriptor changes neither their size nor their time.
			if r.failed != "" || !slices.Equal(r.stat(), r.state) {
				r.reload()
			}
		}
	}
	return r.value.Load()
}

func (r *reloaded[T]) reload() {
	files := zap.String("files", strings.Join(r.files, ", "))
	if err := r.load(); err != nil {
		if r.failed != err.Error() {
			r.log.Error("the new certificate can't be used: the last good one stays in use", files, zap.Error(err))
		}
		r.failed = err.Error()
		return
	}
	r.failed = ""
	if pair, is := any(r.value.Load()).(*tls.Certificate); is {
		r.log.Info("certificate replaced", files, zap.Time("validUntil", pair.Leaf.NotAfter))
	} else {
		r.log.Info("root certificates replaced", files)
	}
}

func (r *reloaded[T]) stat() []fileState {
	states := make([]fileState, len(r.files))
	for i, name := range r.files {
		if info, err := os.Stat(name); err == nil {
			states[i] = fileState{info.Size(), info.ModTime()}
		}
	}
	return states
}

func (r *reloaded[T]) load() error {
	r.state = r.stat() // before reading: a change meanwhile is seen by the next check
	value, err := r.read()
	if err == nil {
		r.value.Store(value)
	}
	return err
}
