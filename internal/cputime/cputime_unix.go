//go:build unix

// Package cputime measures how much of the processors this process has had.
package cputime

import (
	"syscall"
	"time"
)

// Process returns the processor time that this process has had since its start, and
// whether that is known.
func Process() (used time.Duration, known bool) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}
