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

// process is a child of the harness: this program again, with other arguments.
//
// A child that is part of the harness takes one JSON document on its standard
// input, answers with lines of JSON, and ends when its input does; `run`, of
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

// patience bounds the wait for a child to answer or to end.
const patience = 30 * time.Second

// start starts a child on some cores; none is any. onLog sees each line that
// it logs.
func start(ctx context.Context, program, name string, cores []int, onLog func(line []byte), args ...string) (*process, error) {
	p := &process{
		name: name,
		// Ended by stop alone, in order: a second signal would cut that short.
		cmd:   exec.CommandContext(context.WithoutCancel(ctx), program, args...),
		lines: make(chan []byte, 16),
		logs:  &tail{onLine: onLog},
	}
	p.cmd.Stderr = p.logs
	if name == RoleBroker || name == RoleServices {
		// What is given back to the system stays there until the system needs it.
		// Else a broker whose topics come and go has its memory mapped once more
		// all the time, 40,000 pages a second at the worst, and all wait for that.
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

// startOn starts a command from a thread that is pinned: a child inherits the
// affinity of the thread that it is forked from, so its runtime finds it from
// the beginning and sets GOMAXPROCS by it.
func startOn(cmd *exec.Cmd, cores []int) error {
	if len(cores) == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread()
	before, err := allowedCores()
	if err != nil {
		return err
	}
	if err := pinThread(cores); err != nil {
		return err
	}
	err = cmd.Start()
	if pinErr := pinThread(before); pinErr != nil {
		return errors.Join(err, pinErr) // the thread stays locked, and so ends with this goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// pid returns the process id; of no process it is 0.
func (p *process) pid() int {
	if p == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// tell sends the child its document.
func (p *process) tell(v any) error {
	if err := json.NewEncoder(p.stdin).Encode(v); err != nil {
		return p.failed(fmt.Errorf("bench: telling %s what to do: %w", p.name, err))
	}
	return nil
}

// answer waits for a line of JSON.
func (p *process) answer(ctx context.Context, within time.Duration, into any) error {
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

// failed adds what the child logged last.
func (p *process) failed(err error) error {
	if last := p.logs.String(); last != "" {
		return fmt.Errorf("%w; it logged last:\n%s", err, last)
	}
	return err
}

// usage is what a process used in all.
type usage struct{ user, system time.Duration }

// stop ends the child in order and waits for it.
func (p *process) stop() (usage, error) {
	p.end.Do(func() {
		// One way of ending or the other: a signal that comes when the end of
		// the input has made a child let go of its handler would kill it.
		if p.name == RoleRun {
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		}
		_ = p.stdin.Close()
		late := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
		defer late.Stop()
		for range p.lines { // Wait must not close the pipe while it is read
		}
		if err := p.cmd.Wait(); err != nil {
			p.err = p.failed(fmt.Errorf("bench: %s: %w", p.name, err))
		}
	})
	state := p.cmd.ProcessState
	if state == nil {
		return usage{}, p.err
	}
	return usage{state.UserTime(), state.SystemTime()}, p.err
}

// tail keeps the last lines that were logged.
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
