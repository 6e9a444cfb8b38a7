package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"twinegress/e2e/env"
	"twinegress/internal/procgroup"
)

// output is what a process has written so far.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// line returns the first line that has all of these words, or "".
func (o *output) line(words ...string) string {
line:
	for line := range strings.Lines(o.String()) {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue line
			}
		}
		return line
	}
	return ""
}

// tail returns the last lines.
func (o *output) tail(n int) string {
	lines := strings.Split(strings.TrimSpace(o.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// process is a running twinegress.
type process struct {
	t     testing.TB
	name  string
	cmd   *exec.Cmd
	out   output
	log   output // standard error
	ended chan struct{}
}

// start starts the binary. The test's end kills it if it still runs.
func start(t testing.TB, name string, environment []string, args ...string) *process {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: name, ended: make(chan struct{})}
	p.cmd = exec.CommandContext(context.Background(), path, args...)
	p.cmd.Env = append(append(os.Environ(), "GORACE=halt_on_error=1 atexit_sleep_ms=0"), environment...)
	if dir := coverage(); dir != "" {
		p.cmd.Env = append(p.cmd.Env, "GOCOVERDIR="+dir)
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
		if p.log.line("WARNING: DATA RACE") != "" {
			t.Errorf("%s has a data race", name)
		}
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", name, p.log.tail(60))
			p.keepLog()
		}
	})
	return p
}

// keepLog saves the log of a test that failed to the directory E2E_LOGS.
func (p *process) keepLog() {
	dir := os.Getenv("E2E_LOGS")
	if dir == "" {
		return
	}
	file := filepath.Join(dir, strings.ReplaceAll(p.t.Name(), "/", "-")+"-"+p.name+".log")
	if err := os.WriteFile(file, []byte(p.log.String()), 0o600); err != nil {
		p.t.Log(err)
	}
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
		p.t.Fatalf("%s doesn't end:\n%s", p.name, p.log.tail(20))
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop stops the process in order and returns its exit code.
func (p *process) stop() int {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	return p.wait()
}

// kill kills it.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	p.wait()
}
