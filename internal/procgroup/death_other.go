//go:build !linux

package procgroup

import "syscall"

// ownDeath puts a child in a process group of its own. Only Linux lets it die
// with its parent: elsewhere a killed test leaves its children running.
func ownDeath() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
