package app

import (
	"context"
	"errors"
	"strings"

	"github.com/sourcegraph/conc/iter"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/kafka"
	"twinegress/internal/untrusted"
	"twinegress/server"
	"twinegress/server/api"
	"twinegress/sinks"
)

// maxConcurrentChecks bounds how many endpoints are checked concurrently.
const maxConcurrentChecks = 16

// CheckReport is the results of all checks.
type CheckReport struct {
	OK     bool          `json:"ok"`
	Checks []CheckResult `json:"checks"`
}

// CheckResult is the result of one check.
type CheckResult struct {
	What  string `json:"what"` // kafka, right, endpoints, endpoint, api.oidc, api.tls
	ID    string `json:"id,omitempty"`
	Name  string `json:"name,omitempty"`
	Type  string `json:"type,omitempty"` // of an endpoint, or of what a right is about
	Path  string `json:"path,omitempty"` // of an endpoint; else what the check was about
	Key   string `json:"key,omitempty"`  // of an endpoint; of a right, the operation
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	Note  string `json:"note,omitempty"`
}

func (c CheckResult) with(err error) CheckResult {
	c.OK = err == nil
	if err != nil {
		c.Error = untrusted.Text(strings.Join(strings.Fields(err.Error()), " "))
	}
	return c
}

// Failed counts the checks that failed.
func (r CheckReport) Failed() (n int) {
	for _, c := range r.Checks {
		if !c.OK {
			n++
		}
	}
	return n
}

// Check connects to everything that a configuration names, in the order of the
// report. It sends nothing and changes nothing.
func Check(ctx context.Context, cfg config.Config) (r CheckReport) {
	log := zap.NewNop() // errors are in the report
	r.Checks = append(r.Checks, checkKafka(ctx, cfg, log)...)
	if cfg.API.TLS.Enabled() {
		_, err := server.TLS(cfg.API.TLS.CertFile, cfg.API.TLS.KeyFile, log)
		r.Checks = append(r.Checks, CheckResult{What: "api.tls", Path: cfg.API.TLS.CertFile}.with(err))
	}
	if cfg.API.OIDC.Issuer != "" {
		err := api.CheckIssuer(ctx, cfg.API.OIDC)
		r.Checks = append(r.Checks, CheckResult{What: "api.oidc", Path: cfg.API.OIDC.Issuer}.with(err))
	}
	r.Checks = append(r.Checks, checkEndpoints(ctx, cfg, log)...)
	r.OK = r.Failed() == 0
	return r
}

// loadEndpoints reads the endpoints from the configured store.
func loadEndpoints(ctx context.Context, cfg config.Config, log *zap.Logger) ([]endpoints.Endpoint, error) {
	store, err := OpenStore(cfg, log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Send.Timeout) // loading blocks until a broker answers
	defer cancel()
	if cfg.Endpoints.Store == config.StoreKafka {
		connect, err := kafka.Connect(cfg.Ingest, log)
		if err != nil {
			return nil, err
		}
		// Load would create a missing topic; a check must change nothing.
		rights, err := kafka.OpenRights(ctx, connect, cfg.Endpoints.Topic)
		if err != nil {
			return nil, err
		}
		defer rights.Close()
		if err := rights.Topic(cfg.Endpoints.Topic, kafka.Operation("Read")); err != nil && !errors.Is(err, kafka.ErrNotSaid) {
			return nil, err
		}
	}
	return store.Load(ctx)
}

// checkEndpoints reads the endpoints and checks each. If they can't be read, each
// violation is a result.
func checkEndpoints(ctx context.Context, cfg config.Config, log *zap.Logger) []CheckResult {
	all := CheckResult{What: "endpoints", Path: cfg.Endpoints.File}
	switch cfg.Endpoints.Store {
	case config.StoreKafka:
		all.Path = cfg.Endpoints.Topic
	case config.StoreMemory:
		all.Path = "memory"
	}
	open, err := Openers(cfg, log)
	if err != nil {
		return []CheckResult{all.with(err)}
	}
	set, err := loadEndpoints(ctx, cfg, log)
	if cfg.Endpoints.Store == config.StoreKafka && kafka.IsMissing(err) {
		all.Note, err = "the topic is not there yet: run creates it", nil
	}
	if v, ok := errors.AsType[endpoints.ValidationErrors](err); ok {
		results := make([]CheckResult, 0, len(v))
		for _, one := range v {
			results = append(results, all.with(errors.New(one.String())))
		}
		return results
	}
	if err != nil {
		return []CheckResult{all.with(err)}
	}
	return append([]CheckResult{all.with(nil)}, tryEndpoints(ctx, cfg, open, set)...)
}

// tryEndpoints connects to each endpoint with each of its keys, concurrently.
func tryEndpoints(ctx context.Context, cfg config.Config, open map[endpoints.Type]sinks.Open, set []endpoints.Endpoint) []CheckResult {
	type attempt struct {
		endpoint endpoints.Endpoint
		key      sinks.Key
	}
	var attempts []attempt
	for _, e := range set {
		attempts = append(attempts, attempt{e, sinks.Primary})
		if e.SecondaryConnectionString != "" {
			attempts = append(attempts, attempt{e, sinks.Secondary})
		}
	}
	concurrently := iter.Mapper[attempt, CheckResult]{MaxGoroutines: maxConcurrentChecks}
	return concurrently.Map(attempts, func(a *attempt) CheckResult {
		e, by := a.endpoint, a.key.String()
		if e.Authentication == endpoints.AuthenticationIdentity {
			by = "identity"
		}
		return CheckResult{
			What: "endpoint", ID: e.ID, Name: e.Name, Type: string(e.Type), Path: e.Path, Key: by,
		}.with(tryEndpoint(ctx, cfg, open[e.Type], e, a.key))
	})
}

// tryEndpoint connects to one endpoint with one key.
func tryEndpoint(ctx context.Context, cfg config.Config, open sinks.Open, e endpoints.Endpoint, key sinks.Key) error {
	ctx, cancel := context.WithTimeout(ctx, cfg.Send.Timeout)
	defer cancel()
	return sinks.Check(ctx, open, e, key)
}
