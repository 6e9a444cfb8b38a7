package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"twinegress/e2e/env"
)

// A pipe that nobody reads any more doesn't end what writes to it: of a program that
// runs on, its work; of one that prints, the exit code.
func TestClosedPipe(t *testing.T) {
	h := env.New(t, env.Config{Partitions: 1})
	h.SetEndpoints(h.Hub("SensorChange"))
	args := []string{"run"}
	for key, value := range h.Settings(nil) {
		args = append(args, "--set", key+"="+value)
	}
	run := program(t, args...)
	out, in, err := os.Pipe()
	h.Must(err)
	run.Stdout, run.Stderr = in, in
	h.Must(run.Start())
	h.Must(in.Close())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line == "" {
		t.Fatal(line, err)
	}
	h.Must(out.Close()) // as `| head -1` does
	h.Produce(h.Events(5)...)
	h.AwaitCommitted()
	h.Must(run.Process.Signal(syscall.SIGTERM)) // which is logged, to nobody
	if err := run.Wait(); err != nil {
		t.Errorf("run ended with %v", err)
	}

	show := program(t, "run", "--help")
	closed, in, err := os.Pipe()
	h.Must(err)
	h.Must(closed.Close())
	var errs strings.Builder
	show.Stdout, show.Stderr = in, &errs
	if err := show.Run(); err != nil || errs.String() != "" {
		t.Errorf("printing to a closed pipe: %v %s", err, errs.String())
	}
	h.Must(in.Close())
}

// program is this program as a process.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	t.Cleanup(func() {
		if cmd.Process != nil && cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

// Ctrl-C ends a command that waits for its standard input.
func TestReadingEndsWithTheContext(t *testing.T) {
	in, never := io.Pipe()
	defer never.Close()
	ctx, interrupt := context.WithCancelCause(t.Context())
	interrupt(errors.New("Ctrl-C"))
	if _, err := readUntil(ctx, in); err == nil || err.Error() != "interrupted" {
		t.Errorf("%v", err)
	}
}
