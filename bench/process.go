package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a child of the harness: this program with other arguments.
//
// A child that is part of the harness reads one JSON document from its standard
// input, writes lines of JSON, and ends at the end of its input; `run`, of
// whatever kind, ends at a SIGTERM.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	lines chan []byte // of standard output; closed at its end
	logs  *tail
	end   sync.Once
	err   error
}

// childTimeout bounds the wait for a child to reply or to end.
const childTimeout = 30 * time.Second

// start starts a child, pinned to cores if there are some. onLog is called with
// each line that it logs.
func start(ctx context.Context, program, name string, cores []int, onLog func(line []byte), args ...string) (*process, error) {
	p := &process{
		name: name,
		// Only stop ends it: a second signal would interrupt the shutdown.
		cmd:   exec.CommandContext(context.WithoutCancel(ctx), program, args...),
		lines: make(chan []byte, 16),
		logs:  &tail{onLine: onLog},
	}
	p.cmd.Stderr = p.logs
	if name == RoleBroker || name == RoleServices {
		// Freed memory stays mapped until the system needs it. Otherwise a broker
		// whose topics are created and deleted maps its memory again all the time, up
		// to 40,000 pages a second, and all goroutines wait for that.
		p.cmd.Env = append(os.Environ(), "GODEBUG=madvdontneed=0")
	}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	endWithUs(p.cmd)
	if err := startOn(p.cmd, cores); err != nil {
		return nil, fmt.Errorf("bench: starting %s: %w", name, err)
	}
	go func() { // ends with the child's output
		defer close(p.lines)
		scanner := bufio.NewScanner(stdout)
		scanner.Buffer(nil, 1<<20)
		for scanner.Scan() {
			p.lines <- bytes.Clone(scanner.Bytes())
		}
	}()
	return p, nil
}

// startOn starts a command from a pinned thread: a child inherits the affinity of
// the thread that forks it, so its runtime sets GOMAXPROCS by it.
func startOn(cmd *exec.Cmd, cores []int) error {
	if len(cores) == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	before, err := allowedCores()
	if err != nil {
		return err
	}
	if err := pin(0, cores); err != nil {
		return err
	}
	err = cmd.Start()
	if pinErr := pin(0, before); pinErr != nil {
		return errors.Join(err, pinErr) // the thread stays locked, so it ends with this goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// pid returns the process id, 0 for a nil process.
func (p *process) pid() int {
	if p == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// send sends the child its document.
func (p *process) send(v any) error {
	if err := json.NewEncoder(p.stdin).Encode(v); err != nil {
		return p.failed(fmt.Errorf("bench: telling %s what to do: %w", p.name, err))
	}
	return nil
}

// reply waits for a line of JSON from the child.
func (p *process) reply(ctx context.Context, within time.Duration, into any) error {
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case line, ok := <-p.lines:
		if !ok {
			return p.failed(fmt.Errorf("bench: %s ended without an answer", p.name))
		}
		if err := json.Unmarshal(line, into); err != nil {
			return p.failed(fmt.Errorf("bench: %s answered %.80q: %w", p.name, line, err))
		}
		return nil
	case <-timer.C:
		return p.failed(fmt.Errorf("bench: %s has not answered within %v", p.name, within))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// failed adds the last lines of the child's log to an error.
func (p *process) failed(err error) error {
	if last := p.logs.String(); last != "" {
		return fmt.Errorf("%w; it logged last:\n%s", err, last)
	}
	return err
}

// stop shuts the child down and waits for its end.
func (p *process) stop() error {
	p.end.Do(func() {
		// A signal or the end of the input, not both: a signal after the end of the
		// input, when the child has removed its handler, would kill it.
		if p.name == RoleRun {
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		}
		_ = p.stdin.Close()
		late := time.AfterFunc(childTimeout, func() { _ = p.cmd.Process.Kill() })
		defer late.Stop()
		for range p.lines { // Wait must not close the pipe while it is read
		}
		if err := p.cmd.Wait(); err != nil {
			p.err = p.failed(fmt.Errorf("bench: %s: %w", p.name, err))
		}
	})
	return p.err
}

// tail keeps the last lines of a log.
type tail struct {
	onLine func([]byte)

	mu    sync.Mutex
	part  []byte
	lines []string
}

const tailLines = 12

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.part = append(t.part, b...)
	for {
		line, rest, found := bytes.Cut(t.part, []byte("\n"))
		if !found {
			return len(b), nil
		}
		if t.onLine != nil {
			t.onLine(line)
		}
		t.lines = append(t.lines, string(line))
		t.lines = t.lines[max(0, len(t.lines)-tailLines):]
		t.part = rest
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(append(t.lines, string(t.part)), "\n")
}
