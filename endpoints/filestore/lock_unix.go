//go:build unix

package filestore

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

// lockDir waits until this process is the only one that changes files in a
// directory. The lock is on the directory itself, so no lock file is left
// lying about, and ends with the process, so none is left locked.
func lockDir(ctx context.Context, path string) (unlock func(), err error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	// Asked again and again, since a call that waits can't be stopped. The
	// lock is held for the time of one write.
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
			// Not every network file system can. One process still may write;
			// and an edit that another made before is noticed without a lock.
			_ = dir.Close()
			return func() {}, nil
		}
	}
}

// keepOwner gives a file the owner of the one that it is to replace. Where
// that isn't ours to give away, it stays our own.
func keepOwner(f *os.File, of os.FileInfo) {
	if was, ok := of.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(was.Uid), int(was.Gid))
	}
}
