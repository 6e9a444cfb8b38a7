package server

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/file"
)

// certificate is a server's certificate, reloaded when its files change:
// certificates are replaced every few weeks, and that must not need a restart.
// The files are checked when a client connects, so there is no goroutine.
type certificate struct {
	certFile, keyFile string
	log               *zap.Logger

	mu      sync.Mutex
	pair    *tls.Certificate
	loaded  [2]fileState
	checked time.Time
}

// fileState identifies a version of a file. Kubernetes mounts a secret as a
// link; the time is that of its target.
type fileState struct {
	size    int64
	changed time.Time
}

// checkInterval bounds how often a burst of connections checks the files.
const checkInterval = time.Second

// TLS returns the configuration of a server with that certificate. Invalid files
// are an error now; when they are invalid later, the last valid pair stays in use.
func TLS(certFile, keyFile string, log *zap.Logger) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.load(); err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}, nil
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= checkInterval {
		c.checked = now
		if c.stat() != c.loaded {
			if err := c.load(); err != nil {
				c.log.Error("the new certificate can't be used: the last good one stays in use", zap.Error(err))
			} else {
				c.log.Info("certificate replaced", zap.String("file", c.certFile), zap.Time("validUntil", c.pair.Leaf.NotAfter))
			}
		}
	}
	return c.pair, nil
}

func (c *certificate) stat() (loaded [2]fileState) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			loaded[i] = fileState{info.Size(), info.ModTime()}
		}
	}
	return loaded
}

func (c *certificate) load() error {
	c.loaded = c.stat() // before reading: a change meanwhile is seen by the next check
	pair, err := file.KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair = &pair
	return nil
}
