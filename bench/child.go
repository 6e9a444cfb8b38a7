package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/metrics"
	"runtime/pprof"

	"twinegress/bench/floor"
	"twinegress/endpoints"
	"twinegress/internal/emulator"
)

// The roles of a child.
const (
	RoleBroker   = "broker"
	RoleServices = "services"
	RoleFloor    = "floor"
	// RoleRun is the real pipeline with other sinks. It is started by the
	// command, which can put one together.
	RoleRun = "run"
)

// Child is what a child does, from its document on standard input to the end
// of that input.
func Child(ctx context.Context, role string, in io.Reader, out io.Writer) error {
	switch role {
	case RoleBroker:
		return serve(in, out, startBroker)
	case RoleServices:
		return serve(in, out, func(targets []target) (servicesReply, func() error, error) { return startServices(ctx, targets) })
	case RoleFloor:
		return serve(in, out, func(spec floorSpec) (RunReply, func() error, error) {
			stopProfile, err := Profile(spec.Profile)
			if err != nil {
				return RunReply{}, nil, err
			}
			result, err := floor.Run(ctx, spec.Spec)
			return RunReply{Result: result, Balanced: true, RuntimeStats: ReadRuntime()}, stopProfile, err
		})
	}
	return fmt.Errorf("bench: %q is no role of a child", role)
}

func serve[Spec, Reply any](in io.Reader, out io.Writer, begin func(Spec) (Reply, func() error, error)) error {
	var spec Spec
	if err := json.NewDecoder(in).Decode(&spec); err != nil {
		return fmt.Errorf("bench: the child's document: %w", err)
	}
	reply, end, err := begin(spec)
	if err != nil {
		return err
	}
	err = json.NewEncoder(out).Encode(reply)
	if err == nil {
		_, err = io.Copy(io.Discard, in) // until whoever started this has gone
	}
	return errors.Join(err, end())
}

// startBroker starts a broker that keeps so many bytes of a partition, where a
// topic says so; 0: no topic does. It returns its addresses.
func startBroker(retention int64) ([]string, func() error, error) {
	k, err := emulator.StartKafka(emulator.KafkaConfig{RetentionBytes: retention})
	if err != nil {
		return nil, nil, err
	}
	return k.Addrs(), func() error { k.Close(); return nil }, nil
}

type servicesReply struct {
	Stats    string             `json:"stats"`
	CA       string             `json:"ca"`
	Services map[string]service `json:"services"`
	Order    string             `json:"order"` // where to ask what arrived out of order at endpoints that catch up; "": nobody does
}

// service is how to reach an entity.
type service struct {
	ConnectionString string `json:"connectionString"`
	Secondary        string `json:"secondary"`
	Path             string `json:"path"`
}

func startServices(ctx context.Context, targets []target) (servicesReply, func() error, error) {
	cfg := emulator.Config{StatsListen: "127.0.0.1:0", Partitions: partitions, TrackIDs: true}
	for _, t := range targets {
		switch t.Type {
		case endpoints.TypeEventHub:
			cfg.Hubs = append(cfg.Hubs, emulator.Hub{Name: t.Name})
		case endpoints.TypeServiceBus:
			cfg.Topics = append(cfg.Topics, emulator.Topic{Name: t.Name})
		case endpoints.TypeEventGrid:
			cfg.EventGridTopics = append(cfg.EventGridTopics, emulator.GridTopic{Name: t.Name})
		}
	}
	noted := order{of: make(map[string]bool), partitions: make(map[string]*arrivals)}
	for _, t := range targets {
		if t.Catches {
			noted.of[t.Name] = true
			cfg.Arrived = noted.arrived
		}
	}
	e, err := emulator.Start(ctx, cfg)
	if err != nil {
		return servicesReply{}, nil, err
	}
	end := e.Close
	reply := servicesReply{Stats: "http://" + e.StatsAddr(), CA: string(e.CAPEM()), Services: make(map[string]service)}
	if cfg.Arrived != nil {
		url, endOrder, err := noted.serve(ctx)
		if err != nil {
			return servicesReply{}, nil, errors.Join(err, e.Close())
		}
		reply.Order = url
		end = func() error { return errors.Join(e.Close(), endOrder()) }
	}
	for _, t := range targets {
		key, path := e.EntityConnectionString, t.Name
		if t.Type == endpoints.TypeEventGrid {
			key, path = e.EventGridKey, e.EventGridHost(t.Name)
		}
		reply.Services[t.Name] = service{key(t.Name, emulator.Primary), key(t.Name, emulator.Secondary), path}
	}
	return reply, end, nil
}

type floorSpec struct {
	floor.Spec
	Profile string `json:"profile"` // a file for its CPU profile
}

// Profile starts a CPU profile into a file; "" is none.
func Profile(file string) (stop func() error, err error) {
	if file == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// RuntimeStats are of a process since its start. What GC took is brought up
// to date by each collection.
type RuntimeStats struct {
	Mallocs   float64 `json:"mallocs"`
	Allocated float64 `json:"allocated"` // bytes
	GCSeconds float64 `json:"gcSeconds"` // CPU
}

// ReadRuntime asks this process's runtime.
func ReadRuntime() RuntimeStats {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:objects"},
		{Name: "/gc/heap/tiny/allocs:objects"},
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/cpu/classes/gc/total:cpu-seconds"},
	}
	metrics.Read(samples)
	return RuntimeStats{
		// As in runtime.MemStats, and so in twinegress's /metrics.
		Mallocs:   float64(samples[0].Value.Uint64() + samples[1].Value.Uint64()),
		Allocated: float64(samples[2].Value.Uint64()),
		GCSeconds: samples[3].Value.Float64(),
	}
}

// RunSpec is the document of RoleRun: `run` with this configuration, in which
// something is changed.
type RunSpec struct {
	Config   string `json:"config"`
	Discard  bool   `json:"discard"`  // every sink discards
	Outcomes int64  `json:"outcomes"` // it answers when there were that many, if it discards
	Watch    bool   `json:"watch"`    // there is no endpoint whose sink would count them
	Profile  string `json:"profile"`  // a file for its CPU profile
}

// RunReply is its answer, and the floor's. There is no scrape of its metrics
// then, which would cost what a thousand endpoints have to say.
type RunReply struct {
	floor.Result
	Dropped  map[string]int64 `json:"dropped"`
	Balanced bool             `json:"balanced"` // routed = delivered + dropped + pending, for each endpoint
	RuntimeStats
}
