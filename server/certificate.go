package server

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"
)

// certificate is a server's, read again when its files change: certificates
// are replaced every few weeks, and nobody should have to restart for it. It
// looks when a client connects, so there is nothing to run or to stop.
type certificate struct {
	certFile, keyFile string
	log               *zap.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	seen   [2]fileState
	looked time.Time
}

// fileState tells a file from the one that was there before. A secret of
// Kubernetes is a link, whose target's time it is.
type fileState struct {
	size    int64
	changed time.Time
}

// lookAgainAfter keeps a burst of connections from being one of file accesses.
const lookAgainAfter = time.Second

// TLS returns the configuration of a server with that certificate. Files that
// can't be used are an error now; later on they leave the last good pair in use.
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
	if now := time.Now(); now.Sub(c.looked) >= lookAgainAfter {
		c.looked = now
		if c.stat() != c.seen {
			if err := c.load(); err != nil {
				c.log.Error("the new certificate can't be used: the last good one stays in use", zap.Error(err))
			} else {
				c.log.Info("certificate replaced", zap.String("file", c.certFile), zap.Time("validUntil", c.pair.Leaf.NotAfter))
			}
		}
	}
	return c.pair, nil
}

func (c *certificate) stat() (seen [2]fileState) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			seen[i] = fileState{info.Size(), info.ModTime()}
		}
	}
	return seen
}

func (c *certificate) load() error {
	c.seen = c.stat() // before it is read: what changes meanwhile shows the next time
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("%s, %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair = &pair
	return nil
}
