package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/server/api"
	"twinegress/internal/config"
	"twinegress/internal/kafka"
	"twinegress/sinks"
)

// checksAtOnce bounds how many endpoints are tried side by side.
const checksAtOnce = 16

func checkCommand() *cobra.Command {
	var file, output string
	var set map[string]string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate the configuration and try every connection; sends nothing",
		Long: "Reads the configuration and the endpoints as `run` does, and tries Kafka, each endpoint with each of its keys,\n" +
			"and what else there is to connect to. No event is sent and nothing is changed: Event Hubs and Service Bus are\n" +
			"connected to up to the link that events are sent on; Event Grid gets an array without events. What shows only\n" +
			"when an event is sent: whether a quota is used up, and whether an Event Grid topic takes the Event Grid schema.\n\n" +
			"Exit code 1 if something failed, 2 if the configuration is wrong.",
		Example: "  twinegress check --config twinegress.yaml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(config.Sources{File: file, Overrides: set, IgnoreEnv: otherEnvironment})
			if err != nil {
				return usageError{err}
			}
			r := runChecks(cmd.Context(), cfg)
			if output == "json" {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = r.print(cmd.OutOrStdout())
			}
			if err == nil && !r.OK {
				err = fmt.Errorf("%d of %d checks failed", r.failed(), len(r.Checks))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "configuration file (YAML); without one, the defaults and TWINEGRESS_… variables")
	f.StringToStringVar(&set, "set", nil, "override a key of the configuration: --set batch.linger=10ms")
	formatFlag(cmd, &output, "table")
	return cmd
}

// checkReport is all that was tried.
type checkReport struct {
	OK     bool          `json:"ok"`
	Checks []checkResult `json:"checks"`
}

// checkResult is one thing that was tried.
type checkResult struct {
	What  string `json:"what"` // kafka, endpoints, endpoint, api.oidc, api.tls
	ID    string `json:"id,omitempty"`
	Name  string `json:"name,omitempty"`
	Type  string `json:"type,omitempty"`
	Path  string `json:"path,omitempty"` // of an endpoint; else what the check was about
	Key   string `json:"key,omitempty"`
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	Note  string `json:"note,omitempty"`
}

func (c checkResult) with(err error) checkResult {
	c.OK = err == nil
	if err != nil {
		c.Error = strings.Join(strings.Fields(err.Error()), " ")
	}
	return c
}

func (r checkReport) failed() (n int) {
	for _, c := range r.Checks {
		if !c.OK {
			n++
		}
	}
	return n
}

// runChecks tries everything, in an order of its own: that of the report.
func runChecks(ctx context.Context, cfg config.Config) (r checkReport) {
	log := zap.NewNop() // what is wrong is in the report
	r.Checks = append(r.Checks, checkKafka(ctx, cfg, log))
	if cfg.API.TLS.Enabled() {
		_, err := serverTLS(cfg.API.TLS.CertFile, cfg.API.TLS.KeyFile, log)
		r.Checks = append(r.Checks, checkResult{What: "api.tls", Path: cfg.API.TLS.CertFile}.with(err))
	}
	if cfg.API.OIDC.Issuer != "" {
		err := api.OIDC(cfg.API.OIDC).Check(ctx)
		r.Checks = append(r.Checks, checkResult{What: "api.oidc", Path: cfg.API.OIDC.Issuer}.with(err))
	}
	r.Checks = append(r.Checks, checkEndpoints(ctx, cfg, log)...)
	r.OK = r.failed() == 0
	return r
}

func checkKafka(ctx context.Context, cfg config.Config, log *zap.Logger) checkResult {
	result := checkResult{What: "kafka", Path: strings.Join(cfg.Ingest.Topics, ",")}
	connect, err := kafka.Connect(cfg.Ingest, log)
	if err != nil {
		return result.with(err)
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Send.Timeout)
	defer cancel()
	return result.with(kafka.Check(ctx, connect, cfg.Ingest.Topics...))
}

// loadEndpoints reads the endpoints, from wherever they are kept.
func loadEndpoints(ctx context.Context, cfg config.Config, log *zap.Logger) ([]endpoints.Endpoint, error) {
	store, err := openStore(cfg, log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Send.Timeout) // brokers are waited for
	defer cancel()
	if cfg.Endpoints.Store == config.StoreKafka {
		connect, err := kafka.Connect(cfg.Ingest, log)
		if err != nil {
			return nil, err
		}
		// Loading would create a topic that is missing, and this changes nothing.
		if err := kafka.Check(ctx, connect, cfg.Endpoints.Topic); err != nil {
			return nil, err
		}
	}
	return store.Load(ctx)
}

// checkEndpoints tries each endpoint with each of its keys, or says what keeps
// them from being read, one violation a result.
func checkEndpoints(ctx context.Context, cfg config.Config, log *zap.Logger) []checkResult {
	all := checkResult{What: "endpoints", Path: cfg.Endpoints.File}
	switch cfg.Endpoints.Store {
	case config.StoreKafka:
		all.Path = cfg.Endpoints.Topic
	case config.StoreMemory:
		all.Path = "memory"
	}
	open, err := openers(cfg)
	if err != nil {
		return []checkResult{all.with(err)}
	}
	set, err := loadEndpoints(ctx, cfg, log)
	if cfg.Endpoints.Store == config.StoreKafka && kafka.IsMissing(err) {
		all.Note, err = "the topic is not there yet: run creates it", nil
	}
	if v, ok := errors.AsType[endpoints.ValidationErrors](err); ok {
		results := make([]checkResult, 0, len(v))
		for _, one := range v {
			results = append(results, all.with(errors.New(one.String())))
		}
		return results
	}
	if err != nil {
		return []checkResult{all.with(err)}
	}
	results := []checkResult{all.with(nil)}
	var keys []sinks.Key // of the results after the first
	var of []endpoints.Endpoint
	for _, e := range set {
		for _, key := range []sinks.Key{sinks.Primary, sinks.Secondary} {
			if key == sinks.Secondary && e.SecondaryConnectionString == "" {
				continue
			}
			by := key.String()
			if e.Authentication == endpoints.AuthenticationIdentity {
				by = "identity"
			}
			results = append(results, checkResult{
				What: "endpoint", ID: e.ID, Name: e.Name, Type: string(e.Type), Path: e.Path, Key: by,
			})
			keys, of = append(keys, key), append(of, e)
		}
	}
	var running sync.WaitGroup
	free := make(chan struct{}, checksAtOnce)
	for i := range keys {
		free <- struct{}{}
		running.Go(func() {
			defer func() { <-free }()
			results[i+1] = results[i+1].with(tryEndpoint(ctx, cfg, open[of[i].Type], of[i], keys[i]))
		})
	}
	running.Wait()
	return results
}

// tryEndpoint connects to one endpoint with one key.
func tryEndpoint(ctx context.Context, cfg config.Config, open sinks.Open, e endpoints.Endpoint, key sinks.Key) (err error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.Send.Timeout)
	defer cancel()
	sink, err := open(e, key)
	if err != nil {
		return err
	}
	defer func() {
		// Told the same time-out, but not that it is over: a goodbye is short.
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Send.Timeout)
		defer cancel()
		_ = sink.Close(closing) // it was to be tried, and was
	}()
	checker, ok := sink.(sinks.Checker)
	if !ok {
		return fmt.Errorf("BUG: a sink for %s can't be checked", e.Type)
	}
	return checker.Check(ctx)
}

func (r checkReport) print(w io.Writer) error {
	t := newTable(w)
	fmt.Fprintln(t, "RESULT\tWHAT\tTYPE\tPATH\tKEY\tREMARK")
	for _, c := range r.Checks {
		result := "ok"
		if !c.OK {
			result = "FAILED"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", result, cmp.Or(c.Name, c.ID, c.What), c.Type, c.Path, c.Key, cmp.Or(c.Error, c.Note))
	}
	return t.Flush()
}
