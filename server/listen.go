// Package server is the HTTP listener that the Management API (api) and metrics
// and health (ops) share, with its time-outs, its bound on connections, and its
// certificate, which is reloaded when its files change.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Listener is an HTTP server on one address. A nil Listener is switched off: its
// methods do nothing.
type Listener struct {
	TLS *tls.Config // nil: plain HTTP

	listener *connections
	server   *http.Server
	serving  sync.WaitGroup
}

// Listen returns a Listener on the address, with at most so many connections, or nil
// if the address is "". An error names the configuration key.
func Listen(ctx context.Context, key, address string, most int, log *zap.Logger) (*Listener, error) {
	if address == "" {
		return nil, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return On(l, key, most, log), nil
}

// On returns a Listener that owns l.
func On(l net.Listener, key string, most int, log *zap.Logger) *Listener {
	return &Listener{listener: limit(l, key, most, log)}
}

// Evicted returns how many connections were closed to make room for others.
func (l *Listener) Evicted() uint64 {
	if l == nil {
		return 0
	}
	return l.listener.count()
}

// Address returns the address, or "off".
func (l *Listener) Address() string {
	if l == nil {
		return "off"
	}
	return l.listener.Addr().String()
}

// Serve starts to serve h, until Close.
func (l *Listener) Serve(h http.Handler, log *zap.Logger) {
	if l == nil {
		return
	}
	errorLog, _ := zap.NewStdLogAt(log, zap.DebugLevel) // clients' errors below HTTP; the level is valid
	l.server = &http.Server{
		Handler:           h,
		TLSConfig:         l.TLS,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          errorLog,
		ConnState:         l.listener.changed,
	}
	l.serving.Go(func() { // ends with Close
		if l.TLS != nil {
			_ = l.server.ServeTLS(l.listener, "", "")
			return
		}
		_ = l.server.Serve(l.listener)
	})
}

// Close waits up to a second for requests in flight, then closes their
// connections.
func (l *Listener) Close() error {
	if l == nil {
		return nil
	}
	if l.server == nil {
		return l.listener.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := l.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = l.server.Close()
	}
	l.serving.Wait()
	return err
}
