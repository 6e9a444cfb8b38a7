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

// allowedCores returns the cores that this process may run on.
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

// pinProcess pins every thread of this process to cores.
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

// pin confines a thread, and what it starts from then on; 0 is the calling one.
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

// endWithUs makes the kernel end a child when this process ends, even if it is
// killed. The signal is sent when the thread that started the child ends; Go ends
// no thread unless a goroutine locked it.
func endWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }

// cpuTime returns the user and system time of a running process. Its CPU clock has
// a resolution of nanoseconds, /proc/PID/stat one of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	const processClock = 2 // CPUCLOCK_SCHED in the kernel's posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|processClock), &t); err != nil {
		return 0, fmt.Errorf("bench: CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// waitTime returns how long the threads of a running process were ready to run
// and had no core, in total. It excludes threads that ended; Go ends none by
// itself. It is 0 if the kernel doesn't count it.
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

// peakRSS returns the largest resident memory of a running process so far. The
// maximum in its resource usage includes the time before the exec, when the
// process was a copy of this one.
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
