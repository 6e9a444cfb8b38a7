package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
)

// Change edits the file: see endpoints.Store. Whoever reads the file sees it as it was
// or as it becomes, never half of it, also after a power cut. Other processes
// that change it wait for their turn, and an edit by hand that came before is
// read first. Where that edit is broken, nothing is written over it.
func (s *Store) Change(ctx context.Context, edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	release, err := s.live.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	// A link stays a link: what it leads to is replaced.
	target, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return nil, s.unreadable(err)
	}
	unlock, err := lockDir(ctx, filepath.Dir(target))
	if err != nil {
		return nil, fmt.Errorf("endpoints file %s: waiting for another process that changes it: %w", s.path, err)
	}
	defer unlock()
	for {
		next, err := s.change(target, edit)
		if !errors.Is(err, errMoved) {
			return next, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// errMoved means that someone without the lock, an editor, wrote meanwhile.
var errMoved = errors.New("the file changed while it was being changed")

func (s *Store) change(target string, edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	if _, err := s.read(); err != nil {
		// Not with %w: the violations are those of the file, not of the edit.
		return nil, fmt.Errorf("nothing is written over an endpoints file that needs correcting first: %v", err) //nolint:errorlint // see above
	}
	s.mu.Lock()
	content, box := s.content, s.o.Keyring.Box(s.box)
	s.mu.Unlock()
	before := s.live.Current()
	after, err := edit(endpoints.Clone(before))
	if err != nil {
		return nil, err
	}
	next, err := endpoints.Revise(before, after, s.o.Options, time.Now())
	if err != nil {
		return nil, err
	}
	data, err := endpoints.EncodeSet(next, box.Seal)
	if err != nil {
		return nil, fmt.Errorf("endpoints file %s: %w", s.path, err)
	}
	// Under the lock from before the file has it, as read is: what an editor
	// writes right behind it must not be in force before it.
	s.mu.Lock()
	defer s.mu.Unlock()
	if !bytes.Equal(data, content) {
		if err := replaceFile(target, content, data, s.o.Keyring == nil); err != nil {
			return nil, s.unwritable(err)
		}
		s.log.Info("endpoints file written", zap.String("file", s.path), zap.Int("endpoints", len(next)))
	}
	s.content, s.box = data, box
	s.live.Put(next)
	return next, nil
}

// reseal writes the file anew if a secret in it is encrypted with an older key
// than the newest: so that one more start ends a rotation.
func (s *Store) reseal(ctx context.Context) {
	s.mu.Lock()
	older := s.box.Older()
	s.mu.Unlock()
	if !older {
		return
	}
	_, err := s.Change(ctx, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) { return set, nil })
	if err != nil {
		s.log.Warn("secrets in the endpoints file stay encrypted with an older key of endpoints.secretsKeyFile, which must stay there too",
			zap.String("file", s.path), zap.Error(err))
		return
	}
	s.log.Info("every secret in the endpoints file is encrypted with the newest key of endpoints.secretsKeyFile now",
		zap.String("file", s.path))
}

// replaceFile puts data in the place of a file that holds before, or leaves it
// alone. Where it may it keeps the file's owner; and its permissions, unless
// there are secrets in the clear in it.
func replaceFile(path string, before, data []byte, private bool) (err error) {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	// Beside the file: a rename is atomic within one file system only. The
	// name starts with a dot and is nobody's pattern.
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	mode := info.Mode().Perm()
	if private {
		mode = 0o600
	}
	if err := tmp.Chmod(mode); err != nil {
		return err
	}
	keepOwner(tmp, info)
	if _, err := tmp.Write(data); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	// As late as can be. What an editor does between here and the rename is
	// lost, as it would be if it came just before an editor saved.
	now, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Equal(now, before) {
		return errMoved
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("%w: it is in the file, and may be gone again after a power cut: %w", endpoints.ErrUnknown, err)
	}
	return nil
}

// syncDir makes a rename outlive a power cut.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	_ = dir.Close() // nothing was written through it
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil // a file system that has no such thing
	}
	return err
}

// unwritable says why the file could not be replaced.
func (s *Store) unwritable(err error) error {
	switch {
	case errors.Is(err, errMoved):
		return err
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: the endpoints file %s is on a read-only file system, as a mounted ConfigMap or Secret is: "+
			"change it where it comes from", endpoints.ErrReadOnly, s.path)
	case errors.Is(err, syscall.EBUSY):
		return fmt.Errorf("%w: the endpoints file %s is mounted by itself, and so can't be replaced: mount its directory instead",
			endpoints.ErrReadOnly, s.path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the directory of the endpoints file %s must not be written by this user: allow it to, "+
			"or change the file by hand", endpoints.ErrReadOnly, s.path)
	}
	return fmt.Errorf("endpoints file %s can't be written: %w", s.path, err)
}
