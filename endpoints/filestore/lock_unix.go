//go:build unix

package filestore

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// lockDir blocks until this process has the lock of a directory. The lock is on the
// directory itself, so no lock file remains, and the kernel releases it when the
// process ends.
func lockDir(ctx context.Context, path string) (unlock func(), err error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	// It polls, since a blocking call doesn't end with ctx. The lock is held for
	// the time of one write.
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = dir.Close() }, nil
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EWOULDBLOCK):
			select {
			case <-again.C:
			case <-ctx.Done():
				_ = dir.Close()
				return nil, context.Cause(ctx)
			}
		default:
			// Some network file systems don't support it. Without a lock an
			// earlier edit of another process is still noticed.
			_ = dir.Close()
			return func() {}, nil
		}
	}
}

// keepOwner sets a file's owner to that of the file that it replaces. Without the
// right to, it stays this process's.
func keepOwner(f *os.File, of os.FileInfo) {
	if was, ok := of.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(was.Uid), int(was.Gid))
	}
}
