// Package filestore keeps the endpoints in a file, an array of POST bodies, which
// users and other processes may write, too.
//
//	store.go  what is in force, and how a read takes its place
//	watch.go  when to read: the file system's signals
//	write.go  a change: lock, read, edit, replace
//	hang.go   a file system that doesn't answer
package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/secrets"
	"twinegress/internal/file"
)

// Options configure a Store. The zero value works.
type Options struct {
	endpoints.Options
	// Keyring, if set, encrypts the secrets in the file. A user may write them in
	// the clear: the next Change encrypts them.
	Keyring *secrets.Keyring
	// Logger logs every violation of a broken edit, among others. Default: none.
	Logger *zap.Logger
}

// Store is an endpoints.Store in a file, which it follows. It is safe for
// concurrent use. Its methods share the file's last content: watch.go reads it,
// write.go replaces it.
type Store struct {
	path string
	o    Options
	log  *zap.Logger
	live endpoints.Live // the last good set

	// debounce is how long the file must be quiet before it is read, so that a
	// write in several steps is read once. recheck is how often it is read
	// without a sign of a change: some file systems (NFS, bind mounts of a
	// desktop's VM) send none.
	debounce, recheck time.Duration
	// readFile is file.Read; tests replace it.
	readFile func(path string) ([]byte, error)

	// disk orders reads and replacements, so that a Change while the file is read
	// is no news. It is held during I/O, which may hang: Current, Stale and what
	// must end with a context don't take it.
	disk sync.Mutex
	// mu comes behind disk, and is never held during I/O.
	mu    sync.Mutex
	state state
}

// state is what the last read or Change left.
type state struct {
	content []byte       // that was read last, valid or not; nil: none
	invalid error        // of content; nil: it is the set in force
	readErr string       // of the last attempt; "": the file could be read
	loaded  bool         // a valid set was read
	box     *secrets.Box // of the last good set
	reading time.Time    // since when Watch waits for the file; zero: it doesn't
}

var _ endpoints.Store = (*Store)(nil)

// New returns a store of the file at path, without reading it.
func New(path string, o Options) *Store {
	log := o.Logger
	if log == nil {
		log = zap.NewNop()
	}
	return &Store{
		path: path, o: o, log: log, debounce: 100 * time.Millisecond, recheck: 30 * time.Second,
		readFile: file.Read, state: state{box: o.Keyring.Box(nil)},
	}
}

// Load reads the file. An error names the file and what to do; it wraps
// fs.ErrNotExist if the file is missing, and ValidationErrors if it is invalid.
func (s *Store) Load(ctx context.Context) ([]endpoints.Endpoint, error) {
	var err error
	if hung := s.await(ctx, func() { _, err = s.read() }); hung != nil {
		return nil, hung
	}
	if err != nil {
		return nil, err
	}
	set, _, _ := s.live.Take()
	return set, nil
}

// Current returns the set in force: see endpoints.Store.
func (s *Store) Current() []endpoints.Endpoint { return s.live.Current() }

// read puts the file's content in force if it changed since the last read. news
// reports whether the result differs from the last one's; err is set either way.
func (s *Store) read() (news bool, err error) {
	s.disk.Lock()
	defer s.disk.Unlock()
	data, err := s.readFile(s.path)
	info, _ := os.Stat(s.path) // nil if it is gone by now
	return s.take(data, err, info)
}

// take puts what was read in force.
func (s *Store) take(data []byte, err error, info fs.FileInfo) (news bool, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := &s.state
	if err != nil {
		err = s.unreadable(err)
		// The same failure is reported once.
		news = now.readErr != err.Error()
		now.readErr = err.Error()
		return news, err
	}
	// A file that is readable again is news, even with the same content: its
	// absence was reported.
	back := now.readErr != ""
	now.readErr = ""
	if now.content != nil && bytes.Equal(data, now.content) {
		return back, now.invalid
	}
	now.content = data
	box := s.o.Keyring.Box(nil)
	next, err := endpoints.DecodeSet(data, box.Open, s.o.Options)
	if err != nil {
		now.invalid = fmt.Errorf("endpoints file %s:\n%w", s.path, err)
		return true, now.invalid
	}
	endpoints.Stamp(next, s.live.Current(), timeOfChange(now.loaded, info))
	now.invalid, now.loaded, now.box = nil, true, box
	s.live.Put(next)
	s.warnOfReaders(next, info)
	return true, nil
}

// warnOfReaders logs a warning if other users can read keys, with each set that is
// read: the keys may be new. After a Change only the owner can read them.
func (s *Store) warnOfReaders(set []endpoints.Endpoint, info fs.FileInfo) {
	if info == nil || s.o.Keyring != nil || info.Mode().Perm()&0o077 == 0 ||
		!slices.ContainsFunc(set, func(e endpoints.Endpoint) bool { return e.Authentication != endpoints.AuthenticationIdentity }) {
		return
	}
	s.log.Warn("others can read the endpoints file, and the keys in it: chmod 600 it, or have them encrypted with endpoints.secretsKeyFile",
		zap.String("file", s.path), zap.String("mode", fmt.Sprintf("%04o", info.Mode().Perm())))
}

// Stale reports whether the file is invalid or unreadable, or doesn't answer, and
// the set in force is an older one.
func (s *Store) Stale() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := &s.state
	hangs := !now.reading.IsZero() && time.Since(now.reading) >= hangsAfter
	return now.loaded && (now.invalid != nil || now.readErr != "" || hangs)
}

// timeOfChange returns now, but for the first set of this process the file's own
// time, so that a restart doesn't make every endpoint look changed to a client
// that asks for what changed since. Later sets don't use the file's time: a file
// moved into place may have an old one, and its change would be missed.
func timeOfChange(loaded bool, info fs.FileInfo) time.Time {
	now := time.Now()
	if loaded {
		return now
	}
	if info != nil && info.ModTime().Before(now) {
		return info.ModTime()
	}
	return now
}

func (s *Store) unreadable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		tried, absErr := filepath.Abs(s.path) // of a relative one nobody sees from where
		if absErr != nil {
			tried = s.path
		}
		return fmt.Errorf("endpoints file %s does not exist: create it, holding an array of endpoints ([] for none), "+
			"or set endpoints.file to where it is: %w", tried, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("endpoints file %s must not be read by this user: allow it to: %w", s.path, err)
	}
	return fmt.Errorf("endpoints file %s can't be read: %w", s.path, err)
}

// reload reads the file, and logs the result if it is news.
func (s *Store) reload() {
	news, err := s.read()
	if !news {
		return
	}
	if err != nil {
		s.logRefused(err)
	} else {
		s.log.Info("endpoints file taken over", zap.String("file", s.path), zap.Int("endpoints", len(s.Current())))
	}
}

// logRefused logs every violation of a broken edit.
func (s *Store) logRefused(err error) {
	fields := []zap.Field{zap.String("file", s.path), zap.Int("endpointsInForce", len(s.Current()))}
	var v endpoints.ValidationErrors
	if errors.As(err, &v) {
		fields = append(fields, zap.Array("violations", v))
	} else {
		fields = append(fields, zap.Error(err))
	}
	s.log.Error("endpoints file refused: the last good endpoints stay in force until it is corrected", fields...)
}
