// Package filestore keeps the endpoints in a file, an array of POST bodies, which
// people and other processes may write too.
//
//	store.go  what is in force, and how a read takes its place
//	watch.go  when to read: the file system's signals
//	write.go  a change: lock, read, edit, replace
package filestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/secrets"
)

// Options configure a Store. The zero value works.
type Options struct {
	endpoints.Options
	// Keyring, if set, encrypts the secrets in the file. Those that someone
	// writes there in the clear are taken, and encrypted with the next Change.
	Keyring *secrets.Keyring
	// Logger gets an error with every violation of a broken edit. Default: none.
	Logger *zap.Logger
}

// Store is an endpoints.Store in a file, which it follows. It is safe for use by
// several goroutines.
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

	mu      sync.Mutex
	content []byte // of the file at the last attempt, good or bad; nil: none
	bad     error  // what was wrong with content; nil: the set in force is what it says
	missing string // the error of the last attempt, if the file couldn't be read
	good    bool   // there is a last good set

	box *secrets.Box // of the last good set
}

var _ endpoints.Store = (*Store)(nil)

// New returns a store of the file at path, without reading it.
func New(path string, o Options) *Store {
	log := o.Logger
	if log == nil {
		log = zap.NewNop()
	}
	return &Store{path: path, o: o, log: log, debounce: 100 * time.Millisecond, recheck: 30 * time.Second, box: o.Keyring.Box(nil)}
}

// Load reads the file. An error names the file and what to do; it wraps
// fs.ErrNotExist where the file is missing and ValidationErrors where it is
// there and wrong.
func (s *Store) Load(context.Context) ([]endpoints.Endpoint, error) {
	if _, err := s.read(); err != nil {
		return nil, err
	}
	set, _, _ := s.live.Take()
	return set, nil
}

// Current returns the set in force: see endpoints.Store.
func (s *Store) Current() []endpoints.Endpoint { return s.live.Current() }

// read takes the file over if it changed since the last read. It reports
// whether that was news, good or bad; the error is there in any case.
func (s *Store) read() (news bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := os.ReadFile(s.path) // under the lock: what a Change has replaced meanwhile is no news
	if err != nil {
		err = s.unreadable(err)
		// One and the same failure is told once, however often it's looked at.
		news = s.missing != err.Error()
		s.missing = err.Error()
		return news, err
	}
	// A file that comes back as it was has nothing new in it; but that it is
	// back is news to whoever was told that it's gone.
	back := s.missing != ""
	s.missing = ""
	if s.content != nil && bytes.Equal(data, s.content) {
		return back, s.bad
	}
	s.content = data
	box := s.o.Keyring.Box(nil)
	next, err := endpoints.DecodeSet(data, box.Open, s.o.Options)
	if err != nil {
		s.bad = fmt.Errorf("endpoints file %s:\n%w", s.path, err)
		return true, s.bad
	}
	endpoints.Stamp(next, s.live.Current(), s.timeOfChange())
	s.bad, s.good, s.box = nil, true, box
	s.live.Put(next)
	s.warnOfReaders(next)
	return true, nil
}

// warnOfReaders tells that others can read keys: from the first Change on only
// the owner can. It is told with each set that is taken over, since that is
// when keys come.
func (s *Store) warnOfReaders(set []endpoints.Endpoint) {
	info, err := os.Stat(s.path)
	if err != nil || s.o.Keyring != nil || info.Mode().Perm()&0o077 == 0 ||
		!slices.ContainsFunc(set, func(e endpoints.Endpoint) bool { return e.Authentication != endpoints.AuthenticationIdentity }) {
		return
	}
	s.log.Warn("others can read the endpoints file, and the keys in it: chmod 600 it, or have them encrypted with endpoints.secretsKeyFile",
		zap.String("file", s.path), zap.String("mode", fmt.Sprintf("%04o", info.Mode().Perm())))
}

// Stale reports whether the file holds what can't be taken, or is gone, and
// the set in force is an older one.
func (s *Store) Stale() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.good && (s.bad != nil || s.missing != "")
}

// timeOfChange is now; but for the first set of this process the file's own
// time, so that a restart doesn't make every endpoint look new to a client
// that asks for what changed since. Only the first time: a file moved into
// place may well carry an old date, and its change would be missed.
func (s *Store) timeOfChange() time.Time {
	now := time.Now()
	if s.good {
		return now
	}
	if info, err := os.Stat(s.path); err == nil && info.ModTime().Before(now) {
		return info.ModTime()
	}
	return now
}

func (s *Store) unreadable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("endpoints file %s does not exist: create it, holding an array of endpoints ([] for none), "+
			"or set endpoints.file to where it is: %w", s.path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("endpoints file %s must not be read by this user: allow it to: %w", s.path, err)
	}
	return fmt.Errorf("endpoints file %s can't be read: %w", s.path, err)
}

// reload takes over a changed file, if it did change, and tells about it.
func (s *Store) reload() {
	news, err := s.read()
	if !news {
		return
	}
	if err != nil {
		s.refused(err)
	} else {
		s.log.Info("endpoints file taken over", zap.String("file", s.path), zap.Int("endpoints", len(s.Current())))
	}
}

// refused logs a broken edit, every violation of it.
func (s *Store) refused(err error) {
	fields := []zap.Field{zap.String("file", s.path), zap.Int("endpointsInForce", len(s.Current()))}
	var v endpoints.ValidationErrors
	if errors.As(err, &v) {
		fields = append(fields, zap.Array("violations", v))
	} else {
		fields = append(fields, zap.Error(err))
	}
	s.log.Error("endpoints file refused: the last good endpoints stay in force until it is corrected", fields...)
}
