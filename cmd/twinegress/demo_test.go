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
	"twinegress/e2e/env"
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
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out, progress bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	signalled := false
	buf := make([]byte, 4096)
	for {
		n, err := stderr.Read(buf)
		progress.Write(buf[:n])
		if !signalled && strings.Contains(progress.String(), " delivered") {
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
