package app

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/plugin/kprom"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/filestore"
	"twinegress/endpoints/kafkastore"
	"twinegress/endpoints/secrets"
	"twinegress/internal/certfile"
	"twinegress/internal/config"
	"twinegress/internal/event"
	"twinegress/internal/kafka"
	"twinegress/internal/outbound"
	"twinegress/pipeline"
	"twinegress/pipeline/catchup"
	"twinegress/pipeline/fleet"
	"twinegress/sinks"
	"twinegress/sinks/azamqp"
	"twinegress/sinks/deadletter"
	"twinegress/sinks/entra"
	"twinegress/sinks/eventgrid"
	"twinegress/sinks/eventhubs"
	"twinegress/sinks/servicebus"
	"twinegress/stages"
	"twinegress/stages/ingest"
)

// endpointRules returns the configured rules, which hold for endpoints from the
// store and from the API.
func endpointRules(cfg config.Config) endpoints.Options {
	hosts, _ := hosts(cfg) // of a validated configuration; Openers returns the error of another
	return endpoints.Options{
		AllowDevelopmentEmulator: cfg.Endpoints.AllowDevelopmentEmulator,
		IdentityDomains:          cfg.Endpoints.IdentityDomains,
		CheckHost:                hosts.Check,
	}
}

// hosts returns where endpoints may be.
func hosts(cfg config.Config) (*outbound.Hosts, error) {
	c := cfg.Endpoints
	return outbound.ParseHosts(c.Hosts.Allow, c.Hosts.Deny, c.AllowDevelopmentEmulator)
}

// OpenStore returns the configured store of endpoints. Nothing is read before
// Load.
func OpenStore(cfg config.Config, log *zap.Logger) (endpoints.Store, error) {
	options := endpointRules(cfg)
	if cfg.Endpoints.Store == config.StoreMemory {
		return endpoints.NewMemoryStore(nil, options)
	}
	keyring, err := openKeyring(cfg.Endpoints.SecretsKeyFile, log)
	if err != nil {
		return nil, err
	}
	if cfg.Endpoints.Store == config.StoreKafka {
		connect, err := kafka.Connect(cfg.Ingest, log)
		if err != nil {
			return nil, err
		}
		return kafkastore.New(kafkastore.Options{
			Options: options, Topic: cfg.Endpoints.Topic, Keyring: keyring, Logger: log,
			Connect: connect, ClientLog: kafka.Logger(log),
		}), nil
	}
	return filestore.New(cfg.Endpoints.File, filestore.Options{Options: options, Keyring: keyring, Logger: log}), nil
}

// openKeyring returns nil if secrets are stored in the clear.
func openKeyring(file string, log *zap.Logger) (*secrets.Keyring, error) {
	if file == "" {
		return nil, nil
	}
	keyring, warning, err := secrets.Load(file)
	if warning != "" {
		log.Warn(warning)
	}
	return keyring, err
}

// newPipeline builds the pipeline and registers its metrics. loaded is called once
// the endpoints are in force.
func newPipeline(o Options, registry metrics, loaded func()) (_ *pipeline.Pipeline, err error) {
	cfg := o.Config
	if o.Open == nil {
		if o.Open, err = Openers(cfg, o.Log); err != nil {
			return nil, err
		}
	}
	connect, err := kafka.Connect(cfg.Ingest, o.Log)
	if err != nil {
		return nil, err
	}
	kafkaMetrics := kprom.NewMetrics("twinegress_kafka", kprom.Registry(registry))
	instance := cfg.Ingest.InstanceID
	if instance == "" {
		instance, _ = os.Hostname() // "" where the host has no name
	}
	p := pipeline.New(pipeline.Options{
		OpenLetters: func(ctx context.Context) (*deadletter.Topic, error) {
			return deadletter.Open(ctx, cfg.DeadLetter.Topic, cfg.Ingest.Topics, connect, o.Log)
		},
		OpenSource: func(positions ingest.Positions) (*ingest.Source, error) {
			return ingest.New(cfg.Ingest, positions, connect, kafkaMetrics, o.Log)
		},
		Recovery: &pipeline.RecoveryOptions{
			Keeper: catchup.KeeperOptions{
				Group: cfg.Ingest.Group, Topics: cfg.Ingest.Topics, Topic: cfg.Positions.Topic, Groups: cfg.Positions.Groups,
				Connect: connect, Log: o.Log.Named("positions"),
			},
			Reader: catchup.ReaderOptions{
				Connect: connect, BatchBytes: int64(cfg.Ingest.Limits.BatchBytes), MaxInFlight: int64(cfg.Ingest.MaxInFlightBytes),
				Log: o.Log.Named("catchup"),
			},
		},
		Endpoints:        o.Store,
		Loaded:           loaded,
		WaitForEndpoints: cfg.Ingest.WaitForEndpoints,
		Open:             o.Open,
		Render:           render,
		Sender:           senderOptions(cfg),
		Limits:           recordLimits(cfg.Ingest.Limits),
		ShutdownTimeout:  cfg.Shutdown.Timeout,
		Version:          o.Version,
		Instance:         instance,
		Log:              o.Log,
	})
	registry.MustRegister(p,
		// Beyond the defaults: the garbage collector's share of the CPU.
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{
			Matcher: regexp.MustCompile(`^/cpu/classes/(gc/)?total:cpu-seconds$`),
		})),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "twinegress_out_of_descriptors_total",
			Help: "Connections for endpoints that could not be made because this process, or its machine, has no file descriptor left.",
		}, func() float64 { return float64(outbound.Exhausted()) }))
	if file, ok := o.Store.(*filestore.Store); ok {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "twinegress_endpoints_file_refused",
			Help: "1 while the endpoints file is gone, can't be taken or doesn't answer, and the last good endpoints are in force.",
		}, func() float64 {
			if file.Stale() {
				return 1
			}
			return 0
		}))
	}
	return p, nil
}

// newFleet returns this copy among the others.
func newFleet(o Options, p *pipeline.Pipeline, registry metrics) (*fleet.Fleet, error) {
	connect, err := kafka.Connect(o.Config.Ingest, o.Log)
	if err != nil {
		return nil, err
	}
	options := fleet.Options{Pipeline: p, Topic: o.Config.Status.Topic, Group: o.Config.Ingest.Group, Connect: connect, Log: o.Log.Named("fleet")}
	if file, ok := o.Store.(*filestore.Store); ok {
		options.FileRefused = file.Stale
	}
	f := fleet.New(options)
	return f, registry.Register(f)
}

// Openers returns the function that opens a sink, by type of endpoint.
func Openers(cfg config.Config, log *zap.Logger) (map[endpoints.Type]sinks.Open, error) {
	hosts, err := hosts(cfg)
	if err != nil {
		return nil, err
	}
	var roots func() *x509.CertPool // nil: the system's
	if cfg.Send.CAFile != "" {
		file, err := certfile.NewRoots(cfg.Send.CAFile, log)
		if err != nil {
			return nil, fmt.Errorf("send.caFile: %w", err)
		}
		roots = file.Pool
	}
	dialer := outbound.New(hosts, roots)
	identity := entra.New(dialer)
	return map[endpoints.Type]sinks.Open{
		endpoints.TypeEventHub:   eventhubs.Opener(dialer, identity),
		endpoints.TypeServiceBus: servicebus.Opener(dialer, identity),
		endpoints.TypeEventGrid:  eventgrid.Opener(dialer, identity),
	}, nil
}

// render returns the message of an event as the sinks of Openers send it.
func render(endpoint endpoints.Endpoint, ev *event.Event) sinks.Message {
	if endpoint.Type == endpoints.TypeEventGrid {
		return eventgrid.Render(endpoint, ev)
	}
	return azamqp.Render(endpoint, ev)
}

func recordLimits(l config.Limits) stages.Limits {
	return stages.Limits{Elements: l.Elements, Headers: l.Headers, HeaderBytes: int(l.HeaderBytes)}
}

func senderOptions(cfg config.Config) sinks.Options {
	return sinks.Options{
		Linger: cfg.Batch.Linger, MaxEvents: cfg.Batch.MaxEvents,
		BackoffInitial: cfg.Backoff.Initial, BackoffMax: cfg.Backoff.Max,
		Timeout: cfg.Send.Timeout, Attempts: cfg.Send.Attempts, ThrottleLimit: cfg.Send.ThrottleLimit,
		KeepDropped: cfg.DeadLetter.Backoff,
		MaxInFlight: int64(cfg.Ingest.MaxInFlightBytes) / 2,
		Shortages:   sinks.NewShortages(outbound.Exhausted),
	}
}
