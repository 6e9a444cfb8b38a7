//go:build !linux

package bench

import (
	"errors"
	"os/exec"
	"time"
)

// Cores can't be pinned and other processes not looked at: what comes from
// there is left out of the report.
var errLinuxOnly = errors.New("bench: only on Linux")

func allowedCores() ([]int, error)        { return nil, nil }
func pinThread([]int) error               { return errLinuxOnly }
func pinProcess([]int) error              { return errLinuxOnly }
func cpuTime(int) (time.Duration, error)  { return 0, nil }
func waitTime(int) (time.Duration, error) { return 0, nil }
func peakRSS(int) (int64, error)          { return 0, nil }
func currentRSS(int) (int64, error)       { return 0, nil }

func endWithUs(*exec.Cmd) {}
