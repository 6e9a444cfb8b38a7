package main

import (
	"context"
	"crypto/tls"
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
	"go.uber.org/zap"

	"twinegress/server/api"
	"twinegress/internal/config"
	"twinegress/pipeline"
	"twinegress/sinks"
)

// listener is an HTTP server; the zero value is one that is switched off.
type listener struct {
	net.Listener
	server *http.Server
	done   *sync.WaitGroup
	tls    *tls.Config // nil: plain HTTP
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

func (l *listener) serve(h http.Handler, log *zap.Logger) {
	if l.Listener == nil {
		return
	}
	errorLog, _ := zap.NewStdLogAt(log, zap.DebugLevel) // what clients do wrong, below HTTP; the level exists
	l.server = &http.Server{
		Handler:           h,
		TLSConfig:         l.tls,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          errorLog,
	}
	l.done.Go(func() { // ends with close
		if l.tls != nil {
			_ = l.server.ServeTLS(l.Listener, "", "")
			return
		}
		_ = l.server.Serve(l.Listener)
	})
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
	c := s.cfg.API
	tokens := make([]api.Token, 0, len(c.Tokens))
	for _, t := range c.Tokens {
		tokens = append(tokens, api.Token{Name: t.Name, SHA256: t.SHA256, Write: t.Role == config.RoleWrite})
	}
	return api.New(api.Options{
		Store: s.pipeline.Endpoints, Rules: endpointRules(s.cfg),
		Tokens: tokens, OIDC: api.OIDC(c.OIDC), RateLimit: c.RateLimit,
		State: s.endpointState, Retry: s.pipeline.Retry, Log: s.log.Named("api"),
	}, s.pipeline.Status, s.pipeline.EndpointStatus)
}

// endpointState tells how an endpoint is doing, in the words of the v1 service.
func (s *server) endpointState(id string) (api.State, bool) {
	health, ok := s.pipeline.Health(id)
	if !ok {
		return api.State{}, false
	}
	st := api.State{Status: api.StatusReady, Reason: health.Reason, LastError: health.LastError, BackOffUntil: health.BackOffUntil}
	switch health.State {
	case sinks.StateProvisioning:
		st.Status = api.StatusProvisioning
	case sinks.StateBackingOff, sinks.StateProbing:
		st.Status = api.StatusFailed
	case sinks.StateStopped:
		st.Status = api.StatusStopped
	case sinks.StateDeleting:
		st.Status = api.StatusDeleting
	case sinks.StateReady, sinks.StateThrottled: // throttled is slow, not broken
	}
	return st, true
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
