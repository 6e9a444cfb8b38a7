package filestore

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"twinegress/endpoints"
)

// Watch follows the file until ctx ends: see endpoints.Store. A broken edit, or a file
// that disappears, leaves the last good set in force and is reported.
//
// It watches directories, never the file: editors and Kubernetes (with ..data, the
// symlink of a mounted ConfigMap) replace the file by a rename, after which a
// watch on the file would watch the old one.
func (s *Store) Watch(ctx context.Context, apply func([]endpoints.Endpoint)) error {
	s.reseal(ctx)
	signals := make(<-chan struct{})
	syncDirs := func() {}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		// The kernel's limit of watchers must not prevent the start.
		s.log.Warn("the endpoints file can't be watched: looking at it now and then instead",
			zap.String("file", s.path), zap.Duration("every", s.recheck), zap.Error(err))
	} else {
		dirs := &dirWatch{w: w, path: s.path}
		syncDirs = dirs.sync
		// It ends with the watcher, whose Close closes both channels that it reads.
		out, done := make(chan struct{}, 1), make(chan struct{})
		go func() {
			defer close(done)
			forward(w, out, s.log)
		}()
		signals = out
		defer func() {
			_ = w.Close()
			<-done
		}()
	}
	s.follow(ctx, signals, syncDirs, apply)
	return nil
}

// forward sends a signal for each event, unless one is pending.
func forward(w *fsnotify.Watcher, out chan<- struct{}, log *zap.Logger) {
	signal := func() {
		select {
		case out <- struct{}{}:
		default: // one is pending
		}
	}
	for {
		select {
		case _, ok := <-w.Events:
			if !ok {
				return
			}
			signal()
		case err, ok := <-w.Errors:
			if !ok {
				return
			}
			// Most often an overflow: events were lost, so the file must be read.
			log.Warn("watching the endpoints file", zap.Error(err))
			signal()
		}
	}
}

// follow is Watch without the file system's part: it reads the file at once, after
// each burst of signals, and every recheck; and delivers what was read, or written
// by Change. syncDirs is called before each read, so that a change after the read
// is signalled.
func (s *Store) follow(ctx context.Context, signals <-chan struct{}, syncDirs func(), apply func([]endpoints.Endpoint)) {
	read := func() {
		if ctx.Err() != nil {
			return // select picks at random: nothing is delivered after the end
		}
		s.startReading(time.Now())
		err := s.await(ctx, func() {
			syncDirs()
			s.reload()
		})
		if err == nil {
			s.startReading(time.Time{})
		}
	}
	read() // changes since Load
	recheck := time.NewTicker(s.recheck)
	defer recheck.Stop()
	for {
		set, fresh, next := s.live.Take()
		if fresh && ctx.Err() == nil {
			apply(set)
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
			continue
		case <-signals:
			if !s.waitUntilQuiet(ctx, signals) {
				return
			}
		case <-recheck.C:
		}
		read()
	}
}

// waitUntilQuiet blocks until no signal came for the debounce time, but no longer
// than ten times that: in a busy directory they never stop. It reports whether ctx
// is still alive.
func (s *Store) waitUntilQuiet(ctx context.Context, signals <-chan struct{}) bool {
	quiet := time.NewTimer(s.debounce)
	defer quiet.Stop()
	enough := time.NewTimer(10 * s.debounce)
	defer enough.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-signals:
			quiet.Reset(s.debounce)
		case <-quiet.C:
			return true
		case <-enough.C:
			return true
		}
	}
}

// dirWatch watches the directories whose entries a path is resolved through.
type dirWatch struct {
	w    *fsnotify.Watcher
	path string
	on   map[string]os.FileInfo // each watched directory, when it was added
}

// sync updates the watched directories. It skips a directory that can't be
// watched, such as a removed one, until the next signal or recheck.
func (d *dirWatch) sync() {
	// A link that changes just before its directory is watched sends no signal, so
	// the path is resolved until it is the same twice.
	for range 8 {
		want := dirsOf(d.path)
		d.watch(want)
		if slices.Equal(want, dirsOf(d.path)) {
			return
		}
	}
}

func (d *dirWatch) watch(want []string) {
	on := make(map[string]os.FileInfo, len(want))
	for dir, was := range d.on {
		now, err := os.Stat(dir)
		if slices.Contains(want, dir) && err == nil && os.SameFile(was, now) {
			on[dir] = was
			continue
		}
		// No longer wanted, or another directory with the same name, which the old
		// watch doesn't cover.
		_ = d.w.Remove(dir)
	}
	for _, dir := range want {
		if on[dir] != nil {
			continue
		}
		if info, err := os.Stat(dir); err == nil && d.w.Add(dir) == nil {
			on[dir] = info
		}
	}
	d.on = on
}

// dirsOf returns the directories in which a change of an entry can change the
// target of path: that of the file and that of every symlink in the path. Where an
// element is missing, it is the last directory that exists, in which the element
// would appear.
func dirsOf(path string) []string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return []string{filepath.Dir(path)}
	}
	const sep = string(filepath.Separator)
	var (
		dirs = []string{}
		at   = filepath.VolumeName(abs) + sep
		rest = strings.Split(strings.TrimPrefix(abs, at), sep)
	)
	add := func(dir string) {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	// The bound ends a cycle of links; the kernel's is of the same magnitude.
	for links := 0; len(rest) > 0 && links < 255; {
		next := filepath.Join(at, rest[0])
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			add(at)
			return dirs
		case info.Mode()&os.ModeSymlink != 0:
			links++
			add(at)
			target, err := os.Readlink(next)
			if err != nil {
				return dirs
			}
			if filepath.IsAbs(target) {
				at = filepath.VolumeName(target) + sep
				target = strings.TrimPrefix(target, at)
			}
			rest = append(strings.Split(filepath.Clean(target), sep), rest[1:]...)
		default:
			if len(rest) == 1 {
				add(at)
			}
			at, rest = next, rest[1:]
		}
	}
	return dirs
}
