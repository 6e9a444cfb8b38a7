package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// allowedCores are the cores that this process may run on.
func allowedCores() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("bench: which cores may be used: %w", err)
	}
	var cores []int
	for core := range len(set) * 64 {
		if set.IsSet(core) {
			cores = append(cores, core)
		}
	}
	return cores, nil
}

// pinThread confines the calling thread, and what it starts from then on.
func pinThread(cores []int) error { return pin(0, cores) }

// pinProcess confines every thread of this process.
func pinProcess(cores []int) error {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := pin(id, cores); err != nil {
			return err
		}
	}
	return nil
}

func pin(thread int, cores []int) error {
	var set unix.CPUSet
	for _, core := range cores {
		set.Set(core)
	}
	if err := unix.SchedSetaffinity(thread, &set); err != nil {
		return fmt.Errorf("bench: pinning to cores %v: %w", cores, err)
	}
	return nil
}

// endWithUs makes a child end when this process does, however that comes. The
// signal is tied to the thread that starts the child; Go ends no thread that a
// goroutine didn't lock.
func endWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }

// cpuTime is what a running process has used, user and system. Its CPU clock
// has a resolution of nanoseconds, /proc/PID/stat one of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	const processClock = 2 // CPUCLOCK_SCHED in the kernel's posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|processClock), &t); err != nil {
		return 0, fmt.Errorf("bench: CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// waitTime is for how long the threads of a running process were ready to run
// and had no core, in all. Those that ended are not in it; Go ends none of a
// process's own accord. Where the kernel doesn't count it is 0.
func waitTime(pid int) (sum time.Duration, err error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	for _, file := range tasks {
		stat, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
			continue // the thread has just ended
		}
		if err != nil {
			return 0, err
		}
		fields := bytes.Fields(stat) // on a core, waiting for one (ns), times on a core
		if len(fields) < 2 {
			return 0, fmt.Errorf("bench: %s reads %q", file, stat)
		}
		n, err := strconv.ParseInt(string(fields[1]), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("bench: %s: %w", file, err)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}

// peakRSS is the most memory that a running process has had resident. The
// maximum in its resource usage won't do: it counts from before the exec, when
// the process was a copy of this one.
func peakRSS(pid int) (int64, error) { return statusBytes(pid, "VmHWM:") }

func currentRSS(pid int) (int64, error) { return statusBytes(pid, "VmRSS:") }

func statusBytes(pid int, key string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		if value, found := bytes.CutPrefix(line, []byte(key)); found {
			kib, err := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(value), []byte(" kB"))), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("bench: no %s in the status of process %d", key, pid)
}
