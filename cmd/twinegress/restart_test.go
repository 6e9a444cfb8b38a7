package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
	"twinegress/internal/emulator"
)

// program is twinegress as a process of its own.
type program struct {
	*exec.Cmd
	out bytes.Buffer
}

// run starts `twinegress run` on this world's configuration.
func (w *world) run(set ...endpoints.Endpoint) *program {
	w.t.Helper()
	return start(w.t, "run", "--config", w.configFile(set...))
}

// configFile is a configuration of the program on these endpoints.
func (w *world) configFile(set ...endpoints.Endpoint) string {
	w.t.Helper()
	w.write("endpoints.json", file(set...))
	return w.write("twinegress.yaml", fmt.Appendf(nil, `
ingest: {brokers: [%q], sessionTimeout: 6s}
endpoints: {file: %q, allowDevelopmentEmulator: true}
ops: {listen: "127.0.0.1:0"}
send: {caFile: %q}
`, w.kafka.Addrs()[0], w.dir+"/endpoints.json", w.dir+"/ca.pem"))
}

// start starts this test binary as twinegress, and makes sure that it ends.
func start(t testing.TB, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], args...)}
	p.Env = append(os.Environ(), asProgram+"=1")
	p.Stdout, p.Stderr = &p.out, &p.out
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.ProcessState == nil {
			_ = p.Process.Kill()
			_ = p.Wait()
		}
		if t.Failed() {
			t.Logf("twinegress %s:\n%s", strings.Join(args, " "), p.out.String())
		}
	})
	return p
}

// Nothing is lost when the process is killed in mid-stream, and only what was
// in flight is repeated; nothing at all when it is stopped in order.
func TestRestartInMidStream(t *testing.T) {
	const partitions, total = 4, 40_000
	tests := map[string]struct {
		signal  syscall.Signal
		repeats bool // are allowed
	}{
		"killed":  {syscall.SIGKILL, true},
		"stopped": {syscall.SIGTERM, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, partitions)
			w.produce(numbered(total, partitions)...)
			set := []endpoints.Endpoint{w.hub("SensorChange"), w.topic("SensorChange"), w.grid("SensorChange")}
			// Each delivery takes a moment, so that the signal finds the stream in its middle.
			for _, entity := range []string{"hub", "topic", "grid"} {
				if err := w.services.SetFault(entity, emulator.Fault{Delay: emulator.Duration(20e6)}); err != nil {
					t.Fatal(err)
				}
			}
			first := w.run(set...)
			eventually(t, "a part has arrived everywhere", func() bool {
				s := w.services.Stats()
				return s.Entity("hub").Count > total/10 && s.Entity("topic").Count > total/10 && s.Entity("grid").Count > total/10
			})
			if err := first.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			err := first.Wait()
			if !tt.repeats && err != nil {
				t.Errorf("a stop in order ended with %v", err)
			}
			before := w.services.Stats()
			if before.Entity("hub").Count >= total {
				t.Fatalf("all %d events were delivered before the signal", total)
			}

			second := w.run(set...)
			eventually(t, "every event has arrived everywhere", func() bool {
				s := w.services.Stats()
				return s.Entity("hub").Distinct == total && s.Entity("topic").Distinct == total && s.Entity("grid").Count >= total
			})
			if err := second.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := second.Wait(); err != nil {
				t.Errorf("stopping: %v", err)
			}
			for p := range int32(partitions) {
				if at := w.committed(p); at != total/partitions {
					t.Errorf("partition %d: committed offset %d, want %d", p, at, total/partitions)
				}
			}
			seen := make(map[string]bool)
			for _, m := range w.services.Messages("grid") {
				seen[string(m.Body)] = true
			}
			if len(seen) != total {
				t.Errorf("%d distinct events at the grid, want %d", len(seen), total)
			}
			after := w.services.Stats()
			for _, entity := range []string{"hub", "topic", "grid"} {
				repeats := after.Entity(entity).Count - total
				if repeats > 0 && !tt.repeats {
					t.Errorf("%s: %d repeats after a stop in order", entity, repeats)
				}
				t.Logf("%s: %d repeats", entity, repeats)
			}
			goesBack(t, w.services.Messages("hub"), before.Entity("hub").Count)
		})
	}
}

// goesBack checks the order of a hub's messages over one restart: within each
// run every partition only moves forward.
func goesBack(t *testing.T, messages []emulator.Message, firstRun int64) {
	t.Helper()
	last := make(map[int]int)
	for i, m := range messages {
		p, n := place(t, m)
		if int64(i) == firstRun {
			clear(last)
		}
		if previous, ok := last[p]; ok && n <= previous {
			t.Fatalf("partition %d goes back from %d to %d within one run", p, previous, n)
		}
		last[p] = n
	}
}

// A change of the endpoints file takes effect without a restart, and no event
// of an endpoint that stays is lost, repeated or reordered by it.
func TestEndpointsFileIsFollowed(t *testing.T) {
	const partitions = 4
	w := newWorld(t, partitions)
	hub, topic, grid := w.hub("SensorChange"), w.topic("SensorChange"), w.grid("SensorChange")
	r := w.start(w.config(), hub, topic)

	// Events flow the whole time.
	ctx, stop := context.WithCancel(t.Context())
	produced := make(chan int)
	go func() {
		n := 0
		for all := numbered(200_000, partitions); ctx.Err() == nil && n < len(all); n++ {
			w.client.Produce(context.WithoutCancel(ctx), all[n], nil)
			if n%200 == 199 {
				if err := w.client.Flush(ctx); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		}
		if err := w.client.Flush(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
		produced <- n
	}()
	count := func(entity string) int64 { return w.services.Stats().Entity(entity).Count }
	eventually(t, "events at hub and topic", func() bool { return count("hub") > 0 && count("topic") > 0 })

	w.write("endpoints.json", file(hub, topic, grid))
	eventually(t, "events at the new endpoint", func() bool { return count("grid") > 0 })

	w.write("endpoints.json", []byte(`[{"type":"EventHub"`)) // a broken edit changes nothing
	reached := count("hub")
	eventually(t, "events go on", func() bool { return count("hub") > reached+1000 })

	topic.EventTypes = []string{"SpaceChange"}
	w.write("endpoints.json", file(hub, topic))
	eventually(t, "the removed endpoint is gone and the other one takes the new type", func() bool {
		st := r.Pipeline.Status()
		return len(st.Endpoints) == 2 && st.Endpoints[0].EventTypes[0] != st.Endpoints[1].EventTypes[0]
	})
	stop()
	n := <-produced
	r.settled(n)
	for _, e := range r.Pipeline.Status().Endpoints {
		if e.Routed != e.Delivered || e.Pending != 0 {
			t.Errorf("%s: routed %d, delivered %d, dropped %v", e.Path, e.Routed, e.Delivered, e.Dropped)
		}
	}
	if got := count("hub"); got != int64(n) {
		t.Errorf("the hub has %d events of %d", got, n)
	}
	next := make(map[int]int)
	for _, m := range w.services.Messages("hub") {
		p, i := place(t, m)
		if i != next[p] {
			t.Fatalf("partition %d has event %d where %d was next", p, i, next[p])
		}
		next[p]++
	}
	w.produce(&kgo.Record{Value: []byte(samples(t)["SpaceChange"])})
	was := count("topic")
	eventually(t, "the changed endpoint takes the new type", func() bool { return count("topic") == was+1 || count("topic") > was })
}

// One bad endpoint hurts only itself; a refused key costs nothing.
func TestFailuresStayWhereTheyAre(t *testing.T) {
	const total = 5000
	w := newWorld(t, 2)
	missing := w.amqp("missing", endpoints.TypeServiceBus, "topic", []string{"SensorChange"})
	missing.Path = "no-such-topic"
	for _, s := range []*string{&missing.ConnectionString, &missing.SecondaryConnectionString} {
		*s = strings.Replace(*s, "EntityPath=topic", "EntityPath=no-such-topic", 1)
	}
	if err := w.services.SetFault("hub", emulator.Fault{RejectKey: "primary"}); err != nil {
		t.Fatal(err)
	}
	if err := w.services.SetFault("grid", emulator.Fault{RejectKey: "primary"}); err != nil {
		t.Fatal(err)
	}
	if err := w.services.SetFault("topic", emulator.Fault{RejectKey: "both"}); err != nil {
		t.Fatal(err)
	}
	r := w.start(w.config(), w.hub("SensorChange"), w.topic("SensorChange"), w.grid("SensorChange"), missing)
	w.produce(numbered(total, 2)...)
	r.settled(total)
	for _, e := range r.Pipeline.Status().Endpoints {
		var dropped uint64
		for _, n := range e.Dropped {
			dropped += n
		}
		if e.Routed != total || e.Routed != e.Delivered+dropped {
			t.Errorf("%s: routed %d, delivered %d, dropped %v", e.Path, e.Routed, e.Delivered, e.Dropped)
		}
		switch e.Path {
		case "hub", w.services.EventGridHost("grid"):
			if e.Delivered != total || e.Key != "secondary" || e.State != "ready" {
				t.Errorf("%s with its primary key refused: %+v", e.Path, e)
			}
		case "topic":
			if e.Dropped["unauthorized"] == 0 || e.Delivered != 0 || e.State != "backing_off" || e.BackOffUntil == nil {
				t.Errorf("both keys refused: %+v", e)
			}
		case "no-such-topic":
			if e.Dropped["unreachable"] == 0 || e.Delivered != 0 || !strings.Contains(e.LastError, "no-such-topic") {
				t.Errorf("unknown entity: %+v", e)
			}
		}
	}
	_, metrics := get(t, "http://"+r.OpsAddress()+"/metrics", "")
	if !strings.Contains(metrics, `endpoint_type="ServiceBus",event_type="SensorChange",reason="unauthorized"}`) {
		t.Error("the metrics don't say which event types were dropped")
	}
	// The keys are right again: the next probe finds out.
	if err := w.services.ClearFault("topic"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the topic recovers", func() bool {
		w.produce(numbered(2, 2)...)
		for _, e := range r.Pipeline.Status().Endpoints {
			if e.Path == "topic" {
				return e.State == "ready" && e.Delivered > 0
			}
		}
		return false
	})
}

func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	broken := dir + "/broken.yaml"
	if err := os.WriteFile(broken, []byte("ingest: {topic: x}\nbatch: {maxEvents: -1}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		args []string
		code int
		says []string
	}{
		"version":                         {[]string{"version"}, 0, []string{"twinegress"}},
		"version as JSON":                 {[]string{"version", "--output", "json"}, 0, []string{`"go":`}},
		"help has an example":             {[]string{"run", "--help"}, 0, []string{"Examples:", "--config"}},
		"unknown command":                 {[]string{"walk"}, 2, []string{"unknown command"}},
		"unknown flag":                    {[]string{"run", "--nope"}, 2, []string{"--nope", "--help"}},
		"bad output":                      {[]string{"version", "--output", "xml"}, 2, []string{"text or json"}},
		"all configuration errors":        {[]string{"run", "--config", broken}, 2, []string{"ingest.topic", "batch.maxEvents"}},
		"configuration file is missing":   {[]string{"run", "--config", dir + "/none.yaml"}, 2, []string{"none.yaml"}},
		"endpoints file is missing":       {[]string{"run", "--set", "endpoints.file=" + dir + "/none.json", "--set", "ops.listen=127.0.0.1:0"}, 1, []string{"none.json"}},
		"an argument that isn't expected": {[]string{"run", "now"}, 2, []string{"now"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := start(t, tt.args...)
			_ = p.Wait()
			if code := p.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d, want %d:\n%s", code, tt.code, p.out.String())
			}
			for _, s := range tt.says {
				if !strings.Contains(p.out.String(), s) {
					t.Errorf("it doesn't say %q:\n%s", s, p.out.String())
				}
			}
		})
	}
}
