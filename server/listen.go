// Package server is the HTTP listener that the Management API (api) and metrics
// and health (ops) share, with its time-outs and its certificate, which is
// reloaded when its files change.
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

	listener net.Listener
	server   *http.Server
	serving  sync.WaitGroup
}

// Listen returns a Listener on the address, or nil if it is "". An error names
// the configuration key.
func Listen(ctx context.Context, key, address string) (*Listener, error) {
	if address == "" {
		return nil, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return On(l), nil
}

// On returns a Listener that owns l.
func On(l net.Listener) *Listener { return &Listener{listener: l} }

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
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          errorLog,
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
