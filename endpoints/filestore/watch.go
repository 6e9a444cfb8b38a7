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
// It watches directories, never the file: a rename over the file, by which
// careful editors write and by which Kubernetes replaces a mounted ConfigMap
// (..data, a symlink), leaves a watch on the file with the old one.
func (s *Store) Watch(ctx context.Context, apply func([]endpoints.Endpoint)) error {
	s.reseal(ctx)
	signals := make(<-chan struct{})
	look := func() {}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		// The kernel's limit of watchers is no reason not to start.
		s.log.Warn("the endpoints file can't be watched: looking at it now and then instead",
			zap.String("file", s.path), zap.Duration("every", s.recheck), zap.Error(err))
	} else {
		dirs := &dirWatch{w: w, path: s.path}
		look = dirs.sync
		// The only goroutine of this package: it turns fsnotify's two channels
		// into the one signal that the loop needs, and ends with the watcher,
		// whose Close closes both.
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
	s.follow(ctx, signals, look, apply)
	return nil
}

// forward turns events into signals, as many as one reader can take.
func forward(w *fsnotify.Watcher, out chan<- struct{}, log *zap.Logger) {
	signal := func() {
		select {
		case out <- struct{}{}:
		default: // one is waiting already
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
			// An overflow above all: events were lost, so look.
			log.Warn("watching the endpoints file", zap.Error(err))
			signal()
		}
	}
}

// follow is Watch without the file system's part: it reads the file at once,
// after each burst of signals, and every now and then; and it delivers what was
// read, or written by Change. look is called before each reading, so that
// nothing that happens after the reading goes unnoticed.
func (s *Store) follow(ctx context.Context, signals <-chan struct{}, look func(), apply func([]endpoints.Endpoint)) {
	read := func() {
		if ctx.Err() != nil {
			return // select picks at random: nothing is delivered past the end
		}
		look()
		s.reload()
	}
	read() // whatever happened since Load
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
			if !s.settle(ctx, signals) {
				return
			}
		case <-recheck.C:
		}
		read()
	}
}

// settle waits until signals stop coming for the debounce time, yet no longer
// than ten times that: in a busy directory they never stop. It reports whether
// ctx is still alive.
func (s *Store) settle(ctx context.Context, signals <-chan struct{}) bool {
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

// dirWatch keeps a watcher on the directories whose entries decide what a path
// leads to.
type dirWatch struct {
	w    *fsnotify.Watcher
	path string
	on   map[string]os.FileInfo // what each watched directory was when it was added
}

// sync brings the watched directories up to date. What can't be watched, such
// as a directory that is gone again, is left to the next signal or recheck.
func (d *dirWatch) sync() {
	// A link that changes just before its directory is watched gives no signal
	// and leads elsewhere than thought: so look again until nothing moved.
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
		// No longer meant, or another directory of the same name, of which the
		// old watch says nothing.
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

// dirsOf returns the directories in which a change of an entry can change what
// path leads to: that of the file itself and that of every symlink on the way.
// Where something is missing, it is the last directory that exists, in which
// the missing piece would appear.
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
	// The bound is for links that go round in a circle; 255 is the kernel's
	// own order of magnitude.
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
