//go:build unix

package server

import "syscall"

// descriptors returns how many descriptors this process may have, or 0 if that isn't
// known. Go's runtime has raised the soft limit to the hard one.
func descriptors() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int(min(limit.Cur, 1<<30)) //nolint:unconvert // bounded; its type is not the same on every system
}
