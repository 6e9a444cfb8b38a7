package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"twinegress/cmd/twinegress/internal/demo"
	"twinegress/e2e/env"
)

// A signal ends the demo in order: it reports, and leaves no file behind. With
// --output json, standard output has only the report.
func TestDemoEndsInOrderOnASignal(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), env.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, self, "demo", "--plain", "--output", "json")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out bytes.Buffer
	var progress env.Output
	cmd.Stdout, cmd.Stderr = &out, &progress
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	env.Eventually(t, "events are delivered", func() bool { return progress.Line(" delivered") != "" })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	var report struct{ OK bool }
	if jsonErr := json.Unmarshal(out.Bytes(), &report); err != nil || jsonErr != nil || !report.OK {
		t.Errorf("%v, %v\n%s%s", err, jsonErr, &progress, &out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v behind (%v)", left, err)
	}
}

func TestDemoNamesTheFaultsThatThereAre(t *testing.T) {
	_, code, err := shell{t}.command("", "demo", "--fault", "boredom")
	if code != exitUsage {
		t.Fatalf("%v, want a usage error", err)
	}
	help := shell{t}.ok("", "demo", "--help")
	for _, s := range demo.Scenarios {
		if !strings.Contains(err.Error(), s.Name) || !strings.Contains(help, "\n  "+s.Name+" ") {
			t.Errorf("%s is not named in %v, or in\n%s", s.Name, err, help)
		}
	}
}
