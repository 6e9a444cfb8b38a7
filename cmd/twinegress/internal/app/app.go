// Package app builds twinegress from a configuration: the pipeline with its
// store and its sinks, and the servers that show it. The commands and the demo
// run the same [App]; [Check] and [NewReplay] are built from the same parts.
package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/pipeline"
	"twinegress/pipeline/fleet"
	"twinegress/pipeline/letters"
	"twinegress/server"
	"twinegress/server/api"
	"twinegress/server/ops"
	"twinegress/sinks"
)

// Options are the parts of an App.
type Options struct {
	Config  config.Config
	Version string
	Log     *zap.Logger

	Store endpoints.Store               // nil: the configured store
	Open  map[endpoints.Type]sinks.Open // nil: the sinks of the services
}

// App is a pipeline with the servers that show it.
type App struct {
	Pipeline *pipeline.Pipeline
	Store    endpoints.Store
	Metrics  prometheus.Gatherer // the metrics that /metrics serves

	config   config.Config
	version  string
	fleet    *fleet.Fleet
	letters  *letters.Reader
	api, ops *server.Listener
	loaded   atomic.Bool // the endpoints
	log      *zap.Logger
}

// New builds an App from its configuration, and serves health and metrics until Run
// returns. It asks no broker: what only Kafka can tell, Run finds out.
func New(ctx context.Context, o Options) (_ *App, err error) {
	cfg, log := o.Config, o.Log
	if o.Store == nil {
		if o.Store, err = OpenStore(cfg, log); err != nil {
			return nil, err
		}
	}
	registry := metrics{prometheus.NewRegistry()}
	a := &App{Store: o.Store, Metrics: registry, config: cfg, version: o.Version, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.api.Close(), a.ops.Close())
		}
	}()
	// Errors that need no broker are found before Run waits for one.
	if cfg.Endpoints.Store != config.StoreKafka {
		if _, err := o.Store.Load(ctx); err != nil {
			return nil, err
		}
		a.loaded.Store(true)
	}
	if a.letters, err = NewLetters(cfg, log); err != nil {
		return nil, err
	}
	if a.api, err = listenAPI(ctx, cfg.API, log); err != nil {
		return nil, err
	}
	if a.ops, err = server.Listen(ctx, "ops.listen", cfg.Ops.Listen, server.OpsConnections, log); err != nil {
		return nil, err
	}
	registry.MustRegister(evictions("api", a.api), evictions("ops", a.ops))
	if err := ctx.Err(); err != nil {
		return nil, err // stopped before anything began
	}
	if a.Pipeline, err = newPipeline(o, registry, func() { a.loaded.Store(true) }); err != nil { //nolint:contextcheck // the consumer has a context of its own: its Close ends it
		return nil, err
	}
	if a.fleet, err = newFleet(o, a.Pipeline, registry); err != nil {
		return nil, err
	}
	a.ops.Serve(ops.New(registry, a.Pipeline.NotReady), log)
	return a, nil
}

// evictions is the metric of a listener's connections that had to go.
func evictions(name string, l *server.Listener) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "twinegress_connections_evicted_total", ConstLabels: prometheus.Labels{"listener": name},
		Help: "Connections of clients that were closed to make room for others: somebody opens too many.",
	}, func() float64 { return float64(l.Evicted()) })
}

// listenAPI opens the API's address, or returns nil where nobody could call it.
func listenAPI(ctx context.Context, cfg config.API, log *zap.Logger) (*server.Listener, error) {
	if !cfg.Enabled() {
		return nil, nil
	}
	l, err := server.Listen(ctx, "api.listen", cfg.Listen, server.APIConnections, log)
	if err == nil && cfg.TLS.Enabled() {
		if l.TLS, err = server.TLS(cfg.TLS.CertFile, cfg.TLS.KeyFile, log); err != nil {
			err = errors.Join(fmt.Errorf("api.tls: %w", err), l.Close())
			l = nil
		}
	}
	return l, err
}

// Run serves the API and moves events until ctx ends. Health and metrics are
// served until Run returns, so that a slow shutdown can be observed.
func (a *App) Run(ctx context.Context) error {
	a.serveAPI()
	a.log.Info("twinegress runs", zap.String("version", a.version), zap.Strings("brokers", a.config.Ingest.Brokers),
		zap.Strings("topics", a.config.Ingest.Topics), zap.String("group", a.config.Ingest.Group),
		zap.String("api", a.APIAddress()), zap.String("ops", a.OpsAddress()))
	// Until the pipeline has stopped, so that the others see what this copy is
	// doing as it does.
	saying, stopSaying := context.WithCancel(context.WithoutCancel(ctx))
	var saidBye sync.WaitGroup
	saidBye.Go(func() { a.fleet.Run(saying) })
	err := a.Pipeline.Run(ctx)
	stopSaying()
	saidBye.Wait()
	err = errors.Join(err, a.api.Close(), a.ops.Close())
	if err == nil {
		a.log.Info("stopped: every event that was read has its outcome or comes again")
	}
	return err
}

// serveAPI serves the API. Whoever asks while the start waits for Kafka sees what it
// waits for: a connection that nobody answers would tell nothing.
func (a *App) serveAPI() {
	a.api.Serve(api.New(api.Options{
		Config: a.config.API, Store: a.Store, Unloaded: a.unloaded, Rules: endpointRules(a.config),
		Pipeline: a.Pipeline, Fleet: a.fleet, Letters: a.letters, Positions: positions{a.Pipeline, a.fleet}, Log: a.log.Named("api"),
	}), a.log)
}

// unloaded says why the endpoints are not known yet; "" once they are.
func (a *App) unloaded() string {
	if a.loaded.Load() {
		return ""
	}
	return cmp.Or(strings.Join(a.Pipeline.NotReady(), "; "), "starting")
}

// APIAddress returns the address of the Management API, or "off".
func (a *App) APIAddress() string { return a.api.Address() }

// OpsAddress returns the address of metrics and health, or "off".
func (a *App) OpsAddress() string { return a.ops.Address() }
