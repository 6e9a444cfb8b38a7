package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// demoHere keeps the demo's temporary files in the test's own directory, and
// sees to it that nothing of them is left.
func demoHere(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("the demo left %v behind (%v)", left, err)
		}
	})
}

// demoCLI runs the command in this process.
func demoCLI(t *testing.T, args ...string) (out, errOut string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	cmd := rootCommand()
	cmd.SetArgs(append([]string{"demo"}, args...))
	cmd.SetOut(&o)
	cmd.SetErr(&e)
	err = cmd.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

func TestDemoReportsAsJSON(t *testing.T) {
	demoHere(t)
	out, errOut, err := demoCLI(t, "--events", "20000", "--output", "json")
	if err != nil {
		t.Fatalf("%v\n%s%s", err, errOut, out)
	}
	checkSchema(t, "demo-report.schema.json", []byte(out))
	var r demoReport
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatal(err)
	}
	if !r.OK || r.Produced != 20000 || r.Ingest.Events != 20000 || r.Ingest.Lag != 0 || len(r.Ingest.Partitions) != demoPartitions {
		t.Errorf("%+v", r)
	}
	if len(r.Endpoints) != len(demoEndpoints) {
		t.Fatalf("%d endpoints", len(r.Endpoints))
	}
	for i, e := range r.Endpoints {
		if e.Name != demoEndpoints[i].Name || e.Delivered == 0 || e.Delivered != e.Routed || e.Service.Count != int64(e.Delivered) || e.State != "ready" {
			t.Errorf("%+v", e)
		}
		if kept := e.Service.Distinct != nil; kept != (e.Type != "EventGrid") {
			t.Errorf("%s: ids kept: %t", e.Name, kept)
		}
	}
	if !strings.Contains(errOut, "curl -s -H 'Authorization: Bearer ") {
		t.Errorf("progress does not say how to ask for the status:\n%s", errOut)
	}
}

func TestDemoEndsAfterItsDuration(t *testing.T) {
	demoHere(t)
	out, errOut, err := demoCLI(t, "--rate", "500", "--duration", "300ms")
	if err != nil || !strings.Contains(out, "\nOK: ") || !strings.Contains(out, "twin-alerts") {
		t.Errorf("%v\n%s%s", err, errOut, out)
	}
}

func TestDemoEndsInOrderOnASignal(t *testing.T) {
	demoHere(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "demo", "--plain")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var all, log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	signalled := false
	buf := make([]byte, 4096)
	for {
		n, err := stdout.Read(buf)
		all.Write(buf[:n])
		if !signalled && strings.Contains(all.String(), " delivered") {
			signalled = true
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(all.String(), "\nOK: ") {
		t.Errorf("%v\n%s%s", err, all.String(), log.String())
	}
}

func TestDemoRefusesWhatMakesNoSense(t *testing.T) {
	for _, args := range [][]string{
		{"--rate", "-1"}, {"--rate", "NaN"}, {"--rate", "Inf"}, {"--events", "-1"}, {"--duration", "-1s"}, {"--output", "xml"}, {"--fault", "x"},
	} {
		_, _, err := demoCLI(t, args...)
		if _, ok := errors.AsType[usageError](err); !ok {
			t.Errorf("%v: %v, want a usage error", args, err)
		}
	}
}

// The parts must not be left running where the rest can't start.
func TestDemoCleansUpAfterAFailedStart(t *testing.T) {
	demoHere(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := runDemo(ctx, demoOptions{events: 1}, io.Discard, io.Discard); err == nil {
		t.Error("no error")
	}
}

func TestDemoIDsAreKeptWhereTheirNumberIsBounded(t *testing.T) {
	for _, test := range []struct {
		o    demoOptions
		want bool
	}{
		{demoOptions{rate: 2000}, false},
		{demoOptions{events: 200_000}, true},
		{demoOptions{events: 50_000_000}, false},
		{demoOptions{rate: 2000, duration: time.Minute}, true},
		{demoOptions{rate: 2000, duration: 24 * time.Hour}, false},
		{demoOptions{duration: time.Minute}, false}, // as fast as possible
	} {
		if got := test.o.tracked(); got != test.want {
			t.Errorf("%+v: %t", test.o, got)
		}
	}
}

// checkSchema holds a report against a schema in docs/.
func checkSchema(t *testing.T, file string, report []byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", file))
	if err != nil {
		t.Fatal(err)
	}
	var root schema
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // a rule that isn't checked here would be no rule
	if err := d.Decode(&root); err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(report, &v); err != nil {
		t.Fatal(err)
	}
	root.check(t, &root, "report", v)
}

// schema is as much of JSON Schema as the report's needs.
type schema struct {
	Schema      string             `json:"$schema"`
	Ref         string             `json:"$ref"`
	Defs        map[string]*schema `json:"$defs"`
	Title       string             `json:"title"`
	Description string             `json:"description"`
	Type        any                `json:"type"`
	Properties  map[string]*schema `json:"properties"`
	Required    []string           `json:"required"`
	Additional  *bool              `json:"additionalProperties"`
	Items       *schema            `json:"items"`
	Enum        []any              `json:"enum"`
	Minimum     *float64           `json:"minimum"`
}

func (s *schema) check(t *testing.T, root *schema, at string, v any) {
	t.Helper()
	if s.Ref != "" {
		s = root.Defs[strings.TrimPrefix(s.Ref, "#/$defs/")]
	}
	kind := map[bool]string{true: "integer", false: "number"}
	var is []string
	switch v := v.(type) {
	case nil:
		is = []string{"null"}
	case bool:
		is = []string{"boolean"}
	case string:
		is = []string{"string"}
	case float64:
		is = []string{"number", kind[v == float64(int64(v))]}
		if s.Minimum != nil && v < *s.Minimum {
			t.Errorf("%s: %v is under %v", at, v, *s.Minimum)
		}
	case []any:
		is = []string{"array"}
		for _, e := range v {
			s.Items.check(t, root, at+"[]", e)
		}
	case map[string]any:
		is = []string{"object"}
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				t.Errorf("%s: %s is missing", at, name)
			}
		}
		for name, e := range v {
			if p := s.Properties[name]; p != nil {
				p.check(t, root, at+"."+name, e)
			} else if s.Additional != nil && !*s.Additional {
				t.Errorf("%s: %s is not in the schema", at, name)
			}
		}
	}
	if !allows(s.Type, is) {
		t.Errorf("%s: %v is %v, not %v", at, v, is, s.Type)
	}
	if len(s.Enum) > 0 && !allows(s.Enum, []string{strings.TrimSpace(toString(v))}) {
		t.Errorf("%s: %v is none of %v", at, v, s.Enum)
	}
}

func toString(v any) string { s, _ := v.(string); return s }

// allows reports whether one of the names is allowed, by a name or a list.
func allows(allowed any, names []string) bool {
	list, ok := allowed.([]any)
	if !ok {
		list = []any{allowed}
	}
	for _, a := range list {
		for _, n := range names {
			if a == n {
				return true
			}
		}
	}
	return false
}
