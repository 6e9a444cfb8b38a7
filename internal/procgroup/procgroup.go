// Package procgroup starts child processes that don't outlive their parent:
// brokers and copies of twinegress, for tests that kill and suspend them.
package procgroup

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Starter starts processes, each in a process group of its own.
type Starter struct {
	starts chan func()
	done   sync.WaitGroup
}

// NewStarter starts a Starter. Close ends it and, on Linux, its children.
func NewStarter() *Starter {
	s := &Starter{starts: make(chan func())}
	s.done.Go(s.run)
	return s
}

// run starts the processes on one thread of its own. A child is killed when the
// thread that started it ends (childAttr), and the runtime may end any other
// thread early.
func (s *Starter) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	for start := range s.starts {
		start()
	}
}

// Start starts a command as cmd.Start does.
func (s *Starter) Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = childAttr()
	done := make(chan error)
	s.starts <- func() { done <- cmd.Start() }
	return <-done
}

// Close ends the starter and, on Linux, the processes that it started.
func (s *Starter) Close() {
	close(s.starts)
	s.done.Wait()
}

// Signal sends a signal to a process that a Starter started and to its children.
// A process that has ended is no error.
func Signal(cmd *exec.Cmd, signal syscall.Signal) error {
	if err := syscall.Kill(-cmd.Process.Pid, signal); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
