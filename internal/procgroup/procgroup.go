// Package procgroup starts child processes that don't outlive the one that started
// them: brokers and copies of twinegress, for tests that kill and suspend them.
package procgroup

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Starter starts processes. Each leads a process group of its own.
type Starter struct {
	starts chan func()
	done   sync.WaitGroup
}

// NewStarter makes a Starter. After Close its children may be killed.
func NewStarter() *Starter {
	s := &Starter{starts: make(chan func())}
	s.done.Go(s.run)
	return s
}

// run starts what is to be started on a thread of its own. A child is killed
// when the thread that started it ends (ownDeath), and any other thread may
// end before its time.
func (s *Starter) run() {
	runtime.LockOSThread() // and never unlocked: the thread ends with this
	for start := range s.starts {
		start()
	}
}

// Start is cmd.Start.
func (s *Starter) Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = ownDeath()
	done := make(chan error)
	s.starts <- func() { done <- cmd.Start() }
	return <-done
}

// Close ends the starter, and on Linux what it started.
func (s *Starter) Close() {
	close(s.starts)
	s.done.Wait()
}

// Signal sends to a process that was started here and to what it started. A
// process that is gone is no error.
func Signal(cmd *exec.Cmd, signal syscall.Signal) error {
	if err := syscall.Kill(-cmd.Process.Pid, signal); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}
