package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"twinegress/cmd/twinegress/internal/demo"
)

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

func TestDemoEndsInOrderOnASignal(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
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
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v behind (%v)", left, err)
	}
}

// Standard output has only the report with --output json.
func TestDemoPrintsJSON(t *testing.T) {
	out, errOut, err := demoCLI(t, "--events", "300", "--output", "json")
	var report struct {
		OK       bool
		Produced int
	}
	if jsonErr := json.Unmarshal([]byte(out), &report); err != nil || jsonErr != nil || !report.OK || report.Produced != 300 {
		t.Errorf("%v, %v\n%s%s", err, jsonErr, errOut, out)
	}
}

func TestDemoNamesTheFaultsThatThereAre(t *testing.T) {
	_, _, err := demoCLI(t, "--fault", "boredom")
	if _, ok := errors.AsType[usageError](err); !ok {
		t.Fatalf("%v, want a usage error", err)
	}
	help, _, helpErr := demoCLI(t, "--help")
	if helpErr != nil {
		t.Fatal(helpErr)
	}
	for _, s := range demo.Scenarios {
		if !strings.Contains(err.Error(), s.Name) || !strings.Contains(help, "\n  "+s.Name+" ") {
			t.Errorf("%s is not named in %v, or in\n%s", s.Name, err, help)
		}
	}
}
