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

// Change edits the file: see endpoints.Store. The file is replaced atomically, and
// durably over a power cut. Changes of other processes wait for a lock. An edit by
// hand before is read first; if it is broken, the file is not written.
func (s *Store) Change(ctx context.Context, edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	release, err := s.live.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	var next []endpoints.Endpoint
	once := &abandonable{edit: edit}
	hung := s.await(ctx, func() {
		// Not before: what hangs may still replace the file.
		defer release()
		next, err = s.changeFile(ctx, once.call)
	})
	switch {
	case hung == nil:
		return next, err
	case once.abandon():
		return nil, fmt.Errorf("%w: %w", endpoints.ErrUnknown, hung)
	}
	return nil, fmt.Errorf("%w, nothing has changed", hung)
}

func (s *Store) changeFile(ctx context.Context, edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	// A link stays a link: its target is replaced.
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

// errMoved means that a writer without the lock, such as an editor, was faster.
var errMoved = errors.New("the file changed while it was being changed")

func (s *Store) change(target string, edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	if _, err := s.read(); err != nil {
		// Not with %w: these violations are not those of the edit.
		return nil, fmt.Errorf("nothing is written over an endpoints file that needs correcting first: %v", err) //nolint:errorlint // see above
	}
	s.mu.Lock()
	content, box := s.state.content, s.o.Keyring.Box(s.state.box)
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
	// The lock is held over the replacement, as read holds it: what an editor
	// writes right after it must not be in force before it.
	s.disk.Lock()
	defer s.disk.Unlock()
	if !bytes.Equal(data, content) {
		if err := s.replaceFile(target, content, data); err != nil {
			return nil, s.unwritable(err)
		}
		s.log.Info("endpoints file written", zap.String("file", s.path), zap.Int("endpoints", len(next)))
	}
	s.mu.Lock()
	s.state.content, s.state.box = data, box
	s.mu.Unlock()
	s.live.Put(next)
	return next, nil
}

// reseal rewrites the file if a secret in it is encrypted with an older key than
// the newest, so that a restart completes a rotation.
func (s *Store) reseal(ctx context.Context) {
	s.mu.Lock()
	older := s.state.box.Older()
	s.mu.Unlock()
	if !older {
		return
	}
	s.startReading(time.Now()) // Watch waits for it
	_, err := s.Change(ctx, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) { return set, nil })
	s.startReading(time.Time{})
	if err != nil {
		s.log.Warn("secrets in the endpoints file stay encrypted with an older key of endpoints.secretsKeyFile, which must stay there too",
			zap.String("file", s.path), zap.Error(err))
		return
	}
	s.log.Info("every secret in the endpoints file is encrypted with the newest key of endpoints.secretsKeyFile now",
		zap.String("file", s.path))
}

// replaceFile replaces a file that holds before by data, or returns errMoved. It
// keeps the file's owner if it may, and its permissions unless keys are in it in
// the clear.
func (s *Store) replaceFile(path string, before, data []byte) (err error) {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	// In the same directory: a rename is atomic within one file system only. The
	// name starts with a dot, which glob patterns skip.
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
	if s.o.Keyring == nil {
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
	// As late as possible. What an editor writes between here and the rename is
	// lost, as our change is when an editor saves right after it.
	now, err := s.readFile(path)
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

// syncDir makes a rename durable over a power cut.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	err = dir.Sync()
	_ = dir.Close() // nothing was written through it
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil // the file system doesn't support it
	}
	return err
}

// unwritable returns an error that says why the file could not be replaced.
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
