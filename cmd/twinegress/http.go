package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"twinegress/endpoints/api"
	"twinegress/internal/config"
	"twinegress/pipeline"
)

// listener is an HTTP server; the zero value is one that is switched off.
type listener struct {
	net.Listener
	server *http.Server
	done   *sync.WaitGroup
}

// listen opens the address of a configuration key; "" is off.
func listen(ctx context.Context, key, address string) (listener, error) {
	if address == "" {
		return listener{}, nil
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return listener{}, fmt.Errorf("%s: %w", key, err)
	}
	return listener{Listener: l, done: new(sync.WaitGroup)}, nil
}

// address is where it listens, or "off".
func (l *listener) address() string {
	if l.Listener == nil {
		return "off"
	}
	return l.Addr().String()
}

func (l *listener) serve(h http.Handler) {
	if l.Listener == nil {
		return
	}
	l.server = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	l.done.Go(func() { _ = l.server.Serve(l.Listener) }) // ends with close
}

// close lets requests end, briefly.
func (l *listener) close() error {
	if l.Listener == nil {
		return nil
	}
	if l.server == nil {
		return l.Listener.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := l.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = l.server.Close()
	}
	l.done.Wait()
	return err
}

func (s *server) apiHandler() http.Handler {
	tokens := make([]api.Token, 0, len(s.cfg.API.Tokens))
	for _, t := range s.cfg.API.Tokens {
		tokens = append(tokens, api.Token{Name: t.Name, SHA256: t.SHA256, Write: t.Role == config.RoleWrite})
	}
	return api.New(version, tokens, s.pipeline.Status)
}

// opsHandler serves what holds no secrets and needs no token. running is nil
// until there is a pipeline.
func opsHandler(registry *prometheus.Registry, running *atomic.Pointer[pipeline.Pipeline]) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if p := running.Load(); p == nil || !p.Ready() {
			http.Error(w, "not ready: the consumer group is not joined, or the endpoints are not loaded", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	return mux
}
