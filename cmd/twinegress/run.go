package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/plugin/kprom"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/kafkastore"
	"twinegress/internal/config"
	"twinegress/internal/gctuner"
	"twinegress/internal/kafka"
	"twinegress/pipeline"
	"twinegress/sinks"
	"twinegress/sinks/deadletter"
	"twinegress/sinks/entra"
	"twinegress/sinks/eventgrid"
	"twinegress/sinks/eventhubs"
	"twinegress/sinks/servicebus"
	"twinegress/stages/ingest"
)

func runCommand() *cobra.Command {
	var file, level string
	var set map[string]string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Move events until stopped",
		Long: "Consumes the ingest topics as a member of a consumer group and delivers each event to the endpoints that\n" +
			"subscribed to its type. SIGTERM or Ctrl-C stops in order, within shutdown.timeout.",
		Example: "  twinegress run --config twinegress.yaml\n" +
			"  TWINEGRESS_INGEST_BROKERS=kafka:9092 twinegress run --set endpoints.file=/etc/twinegress/endpoints.json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(config.Sources{File: file, Overrides: set, IgnoreEnv: otherEnvironment})
			if err != nil {
				return usageError{err}
			}
			log, err := newLogger(level)
			if err != nil {
				return usageError{err}
			}
			defer func() { _ = log.Sync() }() // a terminal can't be synced
			for _, notice := range cfg.Notices() {
				log.Warn(notice)
			}
			limitMemory(log)
			defer gctuner.Start(heapFloor, heapGrowth)()
			store, err := openStore(cfg, log)
			if err != nil {
				return err
			}
			s, err := newServer(cmd.Context(), cfg, store, log)
			if err != nil {
				return err
			}
			return s.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML); without one, the defaults and TWINEGRESS_… variables")
	cmd.Flags().StringToStringVar(&set, "set", nil, "override a key of the configuration: --set batch.linger=10ms")
	levelFlag(cmd, &level, "info")
	return cmd
}

// The garbage collector's share of the CPU against memory: see docs/performance.md.
const (
	heapFloor  = 192 << 20
	heapGrowth = 70 // percent
)

// otherEnvironment are variables that are ours but no configuration keys.
var otherEnvironment = []string{tokenVariable, serverVariable}

// endpointRules are the operator's, for every way in which an endpoint comes.
func endpointRules(cfg config.Config) endpoints.Options {
	return endpoints.Options{
		AllowDevelopmentEmulator: cfg.Endpoints.AllowDevelopmentEmulator,
		IdentityDomains:          cfg.Endpoints.IdentityDomains,
	}
}

func openStore(cfg config.Config, log *zap.Logger) (endpoints.Store, error) {
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
	return endpoints.NewFileStore(cfg.Endpoints.File, endpoints.FileOptions{Options: options, Keyring: keyring, Logger: log}), nil
}

// openKeyring is nil where secrets are stored in the clear.
func openKeyring(file string, log *zap.Logger) (*endpoints.Keyring, error) {
	if file == "" {
		return nil, nil
	}
	keyring, warning, err := endpoints.LoadKeyring(file)
	if warning != "" {
		log.Warn(warning)
	}
	return keyring, err
}

// server is a pipeline with what can be seen of it from outside.
type server struct {
	cfg      config.Config
	pipeline *pipeline.Pipeline
	registry *prometheus.Registry
	api, ops listener
	log      *zap.Logger
}

// newServer builds everything that a configuration asks for. It waits for
// Kafka, to make sure of the topics that it needs; until then and from then on
// health can be asked for.
func newServer(ctx context.Context, cfg config.Config, store endpoints.Store, log *zap.Logger) (_ *server, err error) {
	s := &server{cfg: cfg, log: log, registry: prometheus.NewRegistry()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.api.close(), s.ops.close())
		}
	}()
	// What can be wrong without a broker is found before one is waited for.
	if cfg.Endpoints.Store != config.StoreKafka {
		if _, err := store.Load(ctx); err != nil {
			return nil, err
		}
	}
	if s.api, err = listen(ctx, "api.listen", apiAddress(cfg)); err != nil {
		return nil, err
	}
	if c := cfg.API.TLS; c.Enabled() && s.api.Listener != nil {
		if s.api.tls, err = serverTLS(c.CertFile, c.KeyFile, log); err != nil {
			return nil, fmt.Errorf("api.tls: %w", err)
		}
	}
	if s.ops, err = listen(ctx, "ops.listen", cfg.Ops.Listen); err != nil {
		return nil, err
	}
	var running atomic.Pointer[pipeline.Pipeline]
	s.ops.serve(opsHandler(s.registry, &running), log)
	if cfg.Endpoints.Store == config.StoreKafka {
		if _, err := store.Load(ctx); err != nil {
			return nil, err
		}
	}
	if s.pipeline, err = newPipeline(ctx, cfg, store, s.registry, log); err != nil {
		return nil, err
	}
	running.Store(s.pipeline)
	return s, nil
}

func newPipeline(ctx context.Context, cfg config.Config, store endpoints.Store, registry *prometheus.Registry, log *zap.Logger) (*pipeline.Pipeline, error) {
	open, err := openers(cfg)
	if err != nil {
		return nil, err
	}
	connect, err := kafka.Connect(cfg.Ingest, log)
	if err != nil {
		return nil, err
	}
	kafkaMetrics := kprom.NewMetrics("twinegress_kafka", kprom.Registry(registry))
	deadLetters, err := deadletter.Open(ctx, cfg.DeadLetter.Topic, cfg.Ingest.Topics, connect, log)
	if err != nil {
		return nil, err
	}
	source, err := ingest.New(cfg.Ingest, connect, kafkaMetrics, log)
	if err != nil {
		return nil, errors.Join(err, deadLetters.Close(ctx))
	}
	instance := cfg.Ingest.InstanceID
	if instance == "" {
		instance, _ = os.Hostname() // "" says so as well
	}
	p := pipeline.New(pipeline.Options{
		Source:          source,
		DeadLetters:     deadLetters,
		Endpoints:       store,
		Open:            open,
		Sender:          senderOptions(cfg),
		ShutdownTimeout: cfg.Shutdown.Timeout,
		Version:         version,
		Instance:        instance,
		Log:             log,
	})
	registry.MustRegister(p,
		// Beyond the usual: what share of the CPU garbage collection takes.
		collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{
			Matcher: regexp.MustCompile(`^/cpu/classes/(gc/)?total:cpu-seconds$`),
		})),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if file, ok := store.(*endpoints.FileStore); ok {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "twinegress_endpoints_file_refused",
			Help: "1 while the endpoints file is gone or can't be taken, and the last good endpoints are in force.",
		}, func() float64 {
			if file.Stale() {
				return 1
			}
			return 0
		}))
	}
	return p, nil
}

// openers are how to open the sinks of each type of endpoint.
func openers(cfg config.Config) (map[endpoints.Type]sinks.Open, error) {
	var roots *x509.CertPool
	if cfg.Send.CAFile != "" {
		var err error
		if roots, err = kafka.Roots(cfg.Send.CAFile); err != nil {
			return nil, fmt.Errorf("send.caFile: %w", err)
		}
	}
	identity := entra.New(roots)
	return map[endpoints.Type]sinks.Open{
		endpoints.TypeEventHub:   eventhubs.Opener(roots, identity),
		endpoints.TypeServiceBus: servicebus.Opener(roots, identity),
		endpoints.TypeEventGrid:  eventgrid.Opener(roots, identity),
	}, nil
}

func senderOptions(cfg config.Config) sinks.Options {
	return sinks.Options{
		Linger: cfg.Batch.Linger, MaxEvents: cfg.Batch.MaxEvents,
		BackoffInitial: cfg.Backoff.Initial, BackoffMax: cfg.Backoff.Max,
		Timeout: cfg.Send.Timeout, Attempts: cfg.Send.Attempts, ThrottleLimit: cfg.Send.ThrottleLimit,
		KeepDropped: cfg.DeadLetter.Backoff,
		MaxHeld:     int64(cfg.Ingest.MaxInFlightBytes) / 2,
	}
}

// apiAddress is "" where nobody could call the API.
func apiAddress(cfg config.Config) string {
	if !cfg.API.Enabled() {
		return ""
	}
	return cfg.API.Listen
}

// run serves and moves events until ctx ends. Health and metrics are served
// to the very end, so that a slow stop can be watched.
func (s *server) run(ctx context.Context) error {
	s.api.serve(s.apiHandler(), s.log)
	s.log.Info("twinegress runs", zap.String("version", version), zap.Strings("brokers", s.cfg.Ingest.Brokers),
		zap.Strings("topics", s.cfg.Ingest.Topics), zap.String("group", s.cfg.Ingest.Group),
		zap.String("api", s.api.address()), zap.String("ops", s.ops.address()))
	err := s.pipeline.Run(ctx)
	err = errors.Join(err, s.api.close(), s.ops.close())
	if err == nil {
		s.log.Info("stopped: every event that was read has its outcome or comes again")
	}
	return err
}
