//go:build !linux

package bench

import (
	"errors"
	"os/exec"
	"time"
)

// errLinuxOnly means that cores can't be pinned. Nor can the times of other
// processes be read: the report omits them.
var errLinuxOnly = errors.New("bench: only on Linux")

func allowedCores() ([]int, error)        { return nil, nil }
func pin(int, []int) error                { return errLinuxOnly }
func pinProcess([]int) error              { return errLinuxOnly }
func cpuTime(int) (time.Duration, error)  { return 0, nil }
func waitTime(int) (time.Duration, error) { return 0, nil }
func peakRSS(int) (int64, error)          { return 0, nil }
func currentRSS(int) (int64, error)       { return 0, nil }

func endWithUs(*exec.Cmd) {}
