//go:build unix

package file

import "syscall"

// nonblock makes the opening of a pipe return at once. It means nothing for a
// regular file.
const nonblock = syscall.O_NONBLOCK
