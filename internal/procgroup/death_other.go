//go:build !linux

package procgroup

import "syscall"

// childAttr puts a child in a process group of its own. Only Linux can kill it
// with its parent: elsewhere the children of a killed test keep running.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
