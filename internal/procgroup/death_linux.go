package procgroup

import "syscall"

// ownDeath puts a child in a process group of its own and lets it die with
// the thread that starts it.
func ownDeath() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
