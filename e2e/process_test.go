package e2e

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"twinegress/e2e/env"
	"twinegress/internal/procgroup"
)

// process is a running twinegress.
type process struct {
	t     testing.TB
	name  string
	cmd   *exec.Cmd
	out   env.Output
	log   env.Output // standard error
	ended chan struct{}
}

// start starts the binary. The test's end kills it if it still runs.
func start(t testing.TB, name string, environment []string, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return startProgram(t, path, name, environment, args...)
}

// startProgram is start of another program.
func startProgram(t testing.TB, path, name string, environment []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, ended: make(chan struct{})}
	p.cmd = exec.CommandContext(context.Background(), path, args...)
	p.cmd.Env = append(append(os.Environ(), "GORACE=halt_on_error=1 atexit_sleep_ms=0"), environment...)
	if testing.CoverMode() != "" { // the coverage of processes is for the tests' own directory, as `make cover` sets it
		p.cmd.Env = append(p.cmd.Env, "GOCOVERDIR="+flag.Lookup("test.gocoverdir").Value.String())
	}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.log
	if err := procs.Start(p.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // ProcessState says how it ended
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.ended
		if p.log.Line("WARNING: DATA RACE") != "" {
			t.Errorf("%s has a data race", name)
		}
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", name, p.log.Tail(60))
		}
	})
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := procgroup.Signal(p.cmd, s); err != nil {
		p.t.Fatal(err)
	}
}

// wait blocks until the process has ended and returns its exit code: -1 for one
// that was killed.
func (p *process) wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(env.Timeout):
		p.t.Fatalf("%s doesn't end:\n%s", p.name, p.log.Tail(20))
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop stops the process in order: its exit code must be 0.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		p.t.Errorf("%s stopped with exit code %d:\n%s", p.name, code, p.log.Tail(10))
	}
}

// kill kills it.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	p.wait()
}
