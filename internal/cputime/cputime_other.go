//go:build !unix

// Package cputime measures how much of the processors this process has had.
package cputime

import "time"

// Process returns the processor time that this process has had since its start, and
// whether that is known. Here it isn't.
func Process() (used time.Duration, known bool) { return 0, false }
