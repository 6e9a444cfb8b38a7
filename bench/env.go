package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/bench/floor"
	"twinegress/internal/emulator"
)

const (
	partitions  = 8
	eventsTopic = "bench-events"
	// startTopic has so few events that their cost is that of the start, the
	// connections and the stop of the process.
	startTopic  = "bench-start"
	startEvents = 40 * partitions
	// The retention of a partition, in bytes, while its events arrive: several
	// times the events that wait to be read. The broker keeps everything in memory,
	// and the first use of memory costs it more than its work.
	liveRetention = 16 << 20
	longRetention = 64 << 20
	// segment is the size of a partition's segment, in bytes. The broker copies a
	// segment's buffer as it grows, those of all partitions at the same time: with
	// its default of 100 MiB that stopped it for 200 ms each time.
	segment = 4 << 20
)

// env is the environment of the measured process during one scenario: broker,
// services, topics and their events. It has a method to make each of these.
type env struct {
	dir      string
	broker   *process
	services *process // nil if the sinks discard
	brokers  []string
	reply    servicesReply
	admin    *kadm.Client
	http     *http.Client
	loader   *loader
	main     loaded
	start    loaded
}

func newEnv(ctx context.Context, h *harness, s *Scenario) (_ *env, err error) {
	e := &env{http: &http.Client{Timeout: childTimeout}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.close())
		}
	}()
	if e.dir, err = os.MkdirTemp("", "twinegress-bench-"); err != nil {
		return nil, err
	}
	if e.broker, err = h.child(ctx, RoleBroker, h.others, nil, s.retention()); err != nil {
		return nil, err
	}
	if err := e.broker.reply(ctx, childTimeout, &e.brokers); err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(e.brokers...))
	if err != nil {
		return nil, err
	}
	e.admin = kadm.NewClient(client)

	if !s.discard {
		if err := e.startServices(ctx, h, s); err != nil {
			return nil, err
		}
	}
	if e.loader, err = newLoader(e.brokers, s); err != nil {
		return nil, err
	}
	if s.live && !s.half {
		return e, nil
	}
	for _, topic := range []string{startTopic, eventsTopic} {
		if err := e.createTopic(ctx, 0, topic); err != nil {
			return nil, err
		}
	}
	if e.start, err = e.loader.load(ctx, startTopic, startEvents, 0); err != nil {
		return nil, err
	}
	if s.hostile {
		e.main, err = e.loader.hostile(ctx, eventsTopic, s.Events)
	} else {
		e.main, err = e.loader.load(ctx, eventsTopic, s.Events, 0)
	}
	return e, err
}

// createTopic creates a topic. A retention of 0 keeps everything.
func (e *env) createTopic(ctx context.Context, retention int, name string) error {
	configs := map[string]*string{
		"segment.bytes":     new(strconv.Itoa(segment)),
		"max.message.bytes": new(strconv.Itoa(maxBomb)),
	}
	if retention > 0 {
		configs["retention.bytes"] = new(strconv.Itoa(retention))
	}
	if _, err := e.admin.CreateTopic(ctx, partitions, 1, configs, name); err != nil {
		return fmt.Errorf("bench: creating topic %s: %w", name, err)
	}
	return nil
}

func (e *env) startServices(ctx context.Context, h *harness, s *Scenario) (err error) {
	if e.services, err = h.child(ctx, RoleServices, h.others, nil, s.targets); err != nil {
		return err
	}
	if err := e.services.reply(ctx, childTimeout, &e.reply); err != nil {
		return err
	}
	if s.delay > 0 {
		for _, t := range s.targets {
			if err := e.inject(ctx, t, emulator.Fault{Delay: emulator.Duration(s.delay)}); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(e.caFile(), []byte(e.reply.CA), 0o600)
}

// inject sets a fault of one of the services.
func (e *env) inject(ctx context.Context, t target, f emulator.Fault) error {
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return e.call(ctx, http.MethodPut, e.reply.Stats+"/faults?entity="+t.Name, body, nil)
}

// repair ends the fault of one of the services.
func (e *env) repair(ctx context.Context, t target) error {
	return e.call(ctx, http.MethodDelete, e.reply.Stats+"/faults?entity="+t.Name, nil, nil)
}

// reset clears the services' counts.
func (e *env) reset(ctx context.Context) error {
	return e.call(ctx, http.MethodPost, e.reply.Stats+"/reset", nil, nil)
}

// stats returns the services' counts.
func (e *env) stats(ctx context.Context) (stats emulator.Stats, err error) {
	err = e.call(ctx, http.MethodGet, e.reply.Stats+"/stats", nil, func(body io.Reader) error { return json.NewDecoder(body).Decode(&stats) })
	return stats, err
}

// call makes a request and passes the response's body to read, unless that is nil.
func (e *env) call(ctx context.Context, method, url string, body []byte, read func(io.Reader) error) error {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := e.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		return fmt.Errorf("bench: %s %s: %s", method, url, response.Status)
	}
	if read == nil {
		return nil
	}
	return read(response.Body)
}

func (e *env) caFile() string { return filepath.Join(e.dir, "ca.pem") }

// close stops all processes and deletes the directory. The topics end with the broker.
func (e *env) close() error {
	var errs []error
	if e.admin != nil {
		e.admin.Close()
	}
	if e.loader != nil {
		e.loader.client.Close()
	}
	e.http.CloseIdleConnections()
	for _, p := range []*process{e.services, e.broker} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	return errors.Join(append(errs, os.RemoveAll(e.dir))...)
}

func (e *env) deleteTopic(ctx context.Context, name string) error {
	if _, err := e.admin.DeleteTopic(ctx, name); err != nil {
		return fmt.Errorf("bench: deleting a topic: %w", err)
	}
	return nil
}

// committed returns an error unless a group's offsets are at the ends of a topic's
// partitions, which means that every event has its outcome.
func (e *env) committed(ctx context.Context, group, topic string) error {
	ends, err := e.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return fmt.Errorf("bench: the ends of %s: %w", topic, err)
	}
	offsets, err := e.admin.FetchOffsets(ctx, group)
	if err != nil {
		return fmt.Errorf("bench: the offsets of %s: %w", group, err)
	}
	var errs []error
	ends.Each(func(end kadm.ListedOffset) {
		if got, _ := offsets.Lookup(topic, end.Partition); got.At != end.Offset {
			errs = append(errs, fmt.Errorf("bench: %s has committed %d of %d records of partition %d", group, got.At, end.Offset, end.Partition))
		}
	})
	return errors.Join(errs...)
}

// configure writes the configuration of `run`, and its endpoints.
func (e *env) configure(s *Scenario, sd side, topic, group string) (file string, err error) {
	set := make([]map[string]any, 0, len(s.of(sd)))
	for _, t := range s.of(sd) {
		c := e.service(t)
		endpoint := map[string]any{
			"name": t.Name, "type": t.Type, "eventTypes": t.Types, "path": c.Path,
			"connectionString": c.ConnectionString, "secondaryConnectionString": c.Secondary,
		}
		if t.Catches {
			endpoint["recovery"] = "catchUp"
		}
		set = append(set, endpoint)
	}
	config := map[string]any{
		"ingest":     map[string]any{"brokers": e.brokers, "topics": []string{topic}, "group": group},
		"endpoints":  map[string]any{"file": filepath.Join(e.dir, "endpoints.json"), "allowDevelopmentEmulator": true},
		"ops":        map[string]any{"listen": "127.0.0.1:0"},
		"deadLetter": map[string]any{"topic": "bench-deadletter"},
	}
	if s.away() {
		config["backoff"] = map[string]any{"max": "1s"} // what is measured begins with the first try that succeeds
	}
	if e.services != nil {
		send := map[string]any{"caFile": e.caFile()}
		if s.down() {
			send["timeout"] = "2s" // so that the first time-out, before the measurement, is soon
		}
		config["send"] = send
	}
	file = filepath.Join(e.dir, "twinegress.yaml") // JSON is YAML
	for name, v := range map[string]any{file: config, filepath.Join(e.dir, "endpoints.json"): set} {
		b, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			return "", err
		}
	}
	return file, nil
}

// service returns the address of a target. One that discards needs only a
// well-formed address.
func (e *env) service(t target) service {
	if e.services != nil {
		return e.reply.Services[t.Name]
	}
	const nowhere = "Endpoint=sb://127.0.0.1:9;SharedAccessKeyName=none;SharedAccessKey=bm9uZQ==;UseDevelopmentEmulator=true;EntityPath="
	return service{nowhere + t.Name, nowhere + t.Name, t.Name}
}

// floorSpec returns the same configuration for the floor.
func (e *env) floorSpec(s *Scenario, sd side, topic, group string, records int64) floorSpec {
	spec := floorSpec{Spec: floor.Spec{Brokers: e.brokers, Topic: topic, Group: group, Records: records, CAFile: e.caFile()}}
	for _, t := range s.of(sd) {
		c := e.service(t)
		to := floor.Endpoint{Type: string(t.Type), EventTypes: t.Types, ConnectionString: c.ConnectionString, Path: c.Path}
		if s.discard {
			to.Type = floor.Discard
		}
		spec.Endpoints = append(spec.Endpoints, to)
	}
	return spec
}

// eventually calls holds at an interval until it returns true or an error.
func eventually(ctx context.Context, within, every time.Duration, holds func() (bool, error)) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := holds(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("not within %v", within)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
