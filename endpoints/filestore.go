package endpoints

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
)

// FileOptions configure a FileStore. The zero value works.
type FileOptions struct {
	Options
	// Keyring, if set, encrypts the secrets in the file. Those that someone
	// writes there in the clear are taken, and encrypted with the next Change.
	Keyring *Keyring
	// Logger gets an error with every violation of a broken edit. Default: none.
	Logger *zap.Logger
	// OnReload, if set, is called after every attempt to take over a changed
	// file: with nil if the set was taken over, else with what was wrong.
	// It is called from the goroutine that runs Watch, before apply.
	OnReload func(err error)
	// Debounce is how long the file must be quiet before it is read, so that
	// a write in several steps is read once. Default 100ms.
	Debounce time.Duration
	// Recheck is how often the file is read without a sign of a change: some
	// file systems (NFS, bind mounts of a desktop's VM) give none. Default 30s.
	Recheck time.Duration
}

// FileStore keeps endpoints in a file, an array of POST bodies, which people
// and other processes may write too: it follows the file. It is safe for use
// by several goroutines.
type FileStore struct {
	path string
	o    FileOptions
	log  *zap.Logger
	live Live // the last good set
	turn turn // of those who write

	mu   sync.Mutex
	seen []byte // the file's content at the last attempt, good or bad; nil: none
	bad  error  // what was wrong with seen; nil: the set in force is what it says
	gone string // the error of the last attempt, if the file couldn't be read
	good bool   // there is a last good set

	sealed sealedSecrets // of the last good set
}

// NewFileStore returns a store of the file at path, without reading it.
func NewFileStore(path string, o FileOptions) *FileStore {
	if o.Debounce <= 0 {
		o.Debounce = 100 * time.Millisecond
	}
	if o.Recheck <= 0 {
		o.Recheck = 30 * time.Second
	}
	log := o.Logger
	if log == nil {
		log = zap.NewNop()
	}
	return &FileStore{path: path, o: o, log: log, turn: newTurn()}
}

// Load reads the file. An error names the file and what to do; it wraps
// fs.ErrNotExist where the file is missing and ValidationErrors where it is
// there and wrong.
func (s *FileStore) Load(context.Context) ([]Endpoint, error) {
	if _, err := s.read(); err != nil {
		return nil, err
	}
	set, _, _ := s.live.Take()
	return set, nil
}

// Current is the set in force: see Store.
func (s *FileStore) Current() []Endpoint { return s.live.Current() }

// read takes the file over if it changed since the last read. It reports
// whether that was news, good or bad; the error is there in any case.
func (s *FileStore) read() (news bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data, err := os.ReadFile(s.path) // under the lock: what a Change has replaced meanwhile is no news
	if err != nil {
		err = s.unreadable(err)
		// One and the same failure is told once, however often it's looked at.
		news = s.gone != err.Error()
		s.gone = err.Error()
		return news, err
	}
	// A file that comes back as it was has nothing new in it; but that it is
	// back is news to whoever was told that it's gone.
	back := s.gone != ""
	s.gone = ""
	if s.seen != nil && bytes.Equal(data, s.seen) {
		return back, s.bad
	}
	s.seen = data
	next, sealed, err := decodeSet(data, s.o.Keyring, s.o.Options)
	if err != nil {
		s.bad = fmt.Errorf("endpoints file %s:\n%w", s.path, err)
		return true, s.bad
	}
	stamp(next, s.live.Current(), s.timeOfChange())
	s.bad, s.good, s.sealed = nil, true, sealed
	s.live.Put(next)
	s.warnOfReaders(next)
	return true, nil
}

// warnOfReaders tells that others can read keys: from the first Change on only
// the owner can. It is told with each set that is taken over, since that is
// when keys come.
func (s *FileStore) warnOfReaders(set []Endpoint) {
	info, err := os.Stat(s.path)
	if err != nil || s.o.Keyring != nil || info.Mode().Perm()&0o077 == 0 ||
		!slices.ContainsFunc(set, func(e Endpoint) bool { return e.Authentication != AuthenticationIdentity }) {
		return
	}
	s.log.Warn("others can read the endpoints file, and the keys in it: chmod 600 it, or have them encrypted with endpoints.secretsKeyFile",
		zap.String("file", s.path), zap.String("mode", fmt.Sprintf("%04o", info.Mode().Perm())))
}

// Stale reports whether the file holds what can't be taken, or is gone, and
// the set in force is an older one.
func (s *FileStore) Stale() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.good && (s.bad != nil || s.gone != "")
}

// timeOfChange is now; but for the first set of this process the file's own
// time, so that a restart doesn't make every endpoint look new to a client
// that asks for what changed since. Only the first time: a file moved into
// place may well carry an old date, and its change would be missed.
func (s *FileStore) timeOfChange() time.Time {
	now := time.Now()
	if s.good {
		return now
	}
	if info, err := os.Stat(s.path); err == nil && info.ModTime().Before(now) {
		return info.ModTime()
	}
	return now
}

func (s *FileStore) unreadable(err error) error {
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
func (s *FileStore) reload() {
	news, err := s.read()
	if !news {
		return
	}
	if err != nil {
		s.refused(err)
	} else {
		s.log.Info("endpoints file taken over", zap.String("file", s.path), zap.Int("endpoints", len(s.Current())))
	}
	if s.o.OnReload != nil {
		s.o.OnReload(err)
	}
}

// refused logs a broken edit, every violation of it.
func (s *FileStore) refused(err error) {
	fields := []zap.Field{zap.String("file", s.path), zap.Int("endpointsInForce", len(s.Current()))}
	var v ValidationErrors
	if errors.As(err, &v) {
		fields = append(fields, zap.Array("violations", v))
	} else {
		fields = append(fields, zap.Error(err))
	}
	s.log.Error("endpoints file refused: the last good endpoints stay in force until it is corrected", fields...)
}
