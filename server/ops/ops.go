// Package ops serves metrics and health. Its replies have no secrets, so it
// needs no token.
package ops

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/semaphore"
)

const (
	// maxScrapes is how many replies with all metrics are made at a time: with ten
	// thousand endpoints one takes a core for seconds, and much memory until it is
	// read. Two are a pair of Prometheus servers.
	maxScrapes = 2
	// scrapeWait is how long a scrape waits for others.
	scrapeWait = 5 * time.Second
	// scrapeTimeout bounds a scrape, as Prometheus does by default: a client that
	// reads slowly must not hold up others for longer.
	scrapeTimeout = 10 * time.Second
)

type registry interface {
	prometheus.Registerer
	prometheus.Gatherer
}

// New returns the handler of /metrics, /healthz and /readyz. notReady says, in
// sentences, what is missing for events to flow.
func New(metrics registry, notReady func() []string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", fewAtATime(promhttp.HandlerFor(metrics, promhttp.HandlerOpts{Registry: metrics})))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if missing := notReady(); len(missing) > 0 {
			http.Error(w, "not ready:\n"+strings.Join(missing, "\n"), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ready\n")
	})
	return mux
}

// fewAtATime bounds the scrapes that are served at one time.
func fewAtATime(metrics http.Handler) http.Handler {
	scrapes := semaphore.NewWeighted(maxScrapes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), scrapeWait)
		defer cancel()
		if scrapes.Acquire(ctx, 1) != nil {
			w.Header().Set("Retry-After", "5")
			http.Error(w, "too many scrapes at a time", http.StatusServiceUnavailable)
			return
		}
		defer scrapes.Release(1)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(scrapeTimeout)) // not every writer has one
		metrics.ServeHTTP(w, r)
	})
}
