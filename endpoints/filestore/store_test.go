package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"twinegress/endpoints"
	"twinegress/endpoints/secrets"
	"twinegress/endpoints/storetest"
	"twinegress/internal/file"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// body is an entry of the file with more keys put in.
func body(more string) string {
	return fmt.Sprintf(`{"type":"EventHub","eventTypes":["SensorChange"],"connectionString":%q,"path":"hub"%s}`, storetest.Conn1, more)
}

// set is an endpoints file with one endpoint for each path.
func set(paths ...string) string {
	var all []string
	for _, p := range paths {
		all = append(all, strings.Replace(body(`,"name":"`+p+`"`), `"path":"hub"`, `"path":"`+p+`"`, 1))
	}
	return "[" + strings.Join(all, ",\n") + "]"
}

func pathsOf(eps []endpoints.Endpoint) string {
	var all []string
	for _, e := range eps {
		all = append(all, e.Path)
	}
	return strings.Join(all, " ")
}

func write(t testing.TB, path, content string) {
	t.Helper()
	storetest.Must(t, os.WriteFile(path, []byte(content), 0o600))
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) endpoints.Store {
		path := filepath.Join(t.TempDir(), "endpoints.json")
		write(t, path, "[]")
		return loaded(t, path)
	})
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	s := New(path, Options{})

	_, err := s.Load(t.Context())
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "create it") {
		t.Errorf("missing file: %v", err)
	}

	write(t, path, set("a", "b"))
	born := time.Now().Add(-time.Hour).Truncate(time.Second)
	storetest.Must(t, os.Chtimes(path, born, born))
	first, err := s.Load(t.Context())
	if err != nil || pathsOf(first) != "a b" {
		t.Fatalf("loaded %v, %v", first, err)
	}
	if !first[0].LastUpdated.Equal(born) {
		t.Errorf("first LastUpdated is %s, want the file's time %s", first[0].LastUpdated, born)
	}
	// A file moved into place may be an old one. What it changes is new here.
	write(t, path, strings.Replace(set("a", "b"), "SensorChange", "SpaceChange", 1))
	storetest.Must(t, os.Chtimes(path, born, born.Add(-time.Hour)))
	start := time.Now()
	second, err := s.Load(t.Context())
	storetest.Must(t, err)
	if second[0].LastUpdated.Before(start) || !second[1].LastUpdated.Equal(born) {
		t.Errorf("LastUpdated %s and %s: want that of the changed one only to move from %s",
			second[0].LastUpdated, second[1].LastUpdated, born)
	}

	write(t, path, "[{}]")
	_, err = s.Load(t.Context())
	if v, _ := errors.AsType[endpoints.ValidationErrors](err); len(v) != 4 || !strings.Contains(err.Error(), path) {
		t.Errorf("broken file: %v", err)
	}
	if _, err := New(t.TempDir(), Options{}).Load(t.Context()); err == nil || !strings.Contains(err.Error(), "can't be read") {
		t.Errorf("a directory: %v", err)
	}
	write(t, path, set("a")[:20])
	if _, err := s.Load(t.Context()); err == nil {
		t.Errorf("half a file is taken")
	}
}

// following is a store under test, with follow running in a synctest bubble.
type following struct {
	*Store
	path    string
	signals chan struct{}
	logs    *observer.ObservedLogs
	stop    func() // ends follow, and returns when it has ended

	mu   sync.Mutex // the bubble orders what happens, but the race detector can't see timers do it
	sets []string   // paths of each set applied
}

// wantLogged compares how often the file was taken over, and refused.
func (w *following) wantLogged(t *testing.T, taken, refused int) {
	t.Helper()
	if w.logs.FilterMessageSnippet("taken over").Len() != taken || w.logs.FilterMessageSnippet("refused").Len() != refused {
		t.Fatalf("logged %v, want %d times taken over, %d times refused", w.logs.All(), taken, refused)
	}
}

// follow runs f in a bubble against a followed file that holds set("a") and
// was loaded before. Only reads and time are real here; signals are f's.
func follow(t *testing.T, f func(t *testing.T, w *following)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, set("a"))
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.InfoLevel)
		w := &following{path: path, signals: make(chan struct{}, 1), logs: logs}
		s := New(path, Options{Logger: zap.New(core)})
		w.Store = s
		_, err := s.Load(t.Context())
		storetest.Must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.follow(ctx, w.signals, func() {}, func(eps []endpoints.Endpoint) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.sets = append(w.sets, pathsOf(eps))
			})
		}()
		synctest.Wait()
		w.stop = func() {
			cancel()
			<-done
		}
		f(t, w)
		w.stop()
	})
}

func (w *following) signal() {
	w.signals <- struct{}{}
	synctest.Wait()
}

// after lets d pass in the bubble and the follower act.
func after(d time.Duration) {
	time.Sleep(d) // the bubble's clock: no time passes outside
	synctest.Wait()
}

func (w *following) want(t *testing.T, sets ...string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Join(w.sets, "; "); got != strings.Join(sets, "; ") {
		t.Fatalf("applied %q, want %q", got, sets)
	}
}

func TestFollowReadsOnceTheFileIsQuiet(t *testing.T) {
	follow(t, func(t *testing.T, w *following) {
		w.want(t) // unchanged since Load
		write(t, w.path, "[")
		w.signal()
		after(99 * time.Millisecond)
		write(t, w.path, set("a", "b"))
		w.signal()
		after(99 * time.Millisecond)
		w.want(t)
		after(time.Millisecond)
		w.want(t, "a b")
		w.wantLogged(t, 1, 0) // half a write was not read
		w.signal()            // another file in the same directory
		after(time.Second)
		w.want(t, "a b")
	})
}

func TestFollowReadsInABusyDirectoryToo(t *testing.T) {
	follow(t, func(t *testing.T, w *following) {
		write(t, w.path, set("b"))
		for range 19 {
			w.signal()
			after(50 * time.Millisecond)
		}
		w.want(t)
		w.signal()
		after(50 * time.Millisecond)
		w.want(t, "b")
	})
}

func TestFollowRechecksWithoutASignal(t *testing.T) {
	follow(t, func(t *testing.T, w *following) {
		write(t, w.path, set("b"))
		after(w.recheck - time.Nanosecond)
		w.want(t)
		after(time.Nanosecond)
		w.want(t, "b")
	})
}

func TestFollowKeepsTheLastGoodSet(t *testing.T) {
	for name, tt := range map[string]struct {
		inject func(t *testing.T, path string)
		field  string // of the log line, and a part of it
		want   string
	}{
		"a broken edit": {
			func(t *testing.T, path string) { write(t, path, strings.Replace(set("a", "b"), "EventHub", "Hub", 2)) },
			"violations", "[endpoints[0] (a): type: unknown value",
		},
		"a pipe in its place": {
			func(t *testing.T, path string) {
				storetest.Must(t, os.Remove(path))
				mkfifo(t, path)
			}, "error", "is a pipe, not a regular file",
		},
		"one that is too large": {
			func(t *testing.T, path string) { storetest.Must(t, os.Truncate(path, file.MaxSize+1)) },
			"error", "is larger than 64 MiB",
		},
		"a missing file": {func(t *testing.T, path string) { storetest.Must(t, os.Remove(path)) }, "error", missing},
	} {
		t.Run(name, func(t *testing.T) {
			follow(t, func(t *testing.T, w *following) {
				tt.inject(t, w.path)
				w.signal()
				after(time.Second)
				w.want(t)
				if !w.Stale() {
					t.Error("the set in force isn't stale")
				}
				w.wantLogged(t, 0, 1)
				fields := w.logs.All()[0].ContextMap()
				if got := fmt.Sprint(fields[tt.field]); !strings.Contains(got, tt.want) || fields["endpointsInForce"] != int64(1) || fields["file"] != w.path {
					t.Errorf("logged %v", fields)
				}

				w.signal() // nothing new: not logged again
				after(time.Hour)
				w.wantLogged(t, 0, 1)

				_ = os.Remove(w.path)
				write(t, w.path, set("a", "c"))
				w.signal()
				after(time.Second)
				w.want(t, "a c")
				if w.Stale() {
					t.Error("a corrected file is stale")
				}
			})
		})
	}
}

// A warning is logged if other users can read keys in the clear; after a write they
// can't. Without such keys the file's permissions are not changed.
func TestOthersCanRead(t *testing.T) {
	sealed := storetest.Keyring(t, storetest.AgeKey(t))
	identity := `[{"type":"ServiceBus","eventTypes":["SpaceChange"],"path":"t","connectionString":"Endpoint=sb://ns.servicebus.windows.net/","authentication":"identityBased"}]`
	for name, tt := range map[string]struct {
		content string
		mode    fs.FileMode
		ring    *secrets.Keyring
		warned  int
		after   fs.FileMode
	}{
		"its owner alone":    {set("a"), 0o600, nil, 0, 0o600},
		"a group":            {set("a"), 0o640, nil, 1, 0o600},
		"everybody":          {set("a"), 0o644, nil, 1, 0o600},
		"no keys":            {identity, 0o644, nil, 0, 0o600},
		"keys are encrypted": {set("a"), 0o640, sealed, 0, 0o640},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "endpoints.json")
			write(t, path, tt.content)
			storetest.Must(t, os.Chmod(path, tt.mode))
			core, logs := observer.New(zap.WarnLevel)
			s := New(path, Options{Keyring: tt.ring, Logger: zap.New(core)})
			_, err := s.Load(t.Context())
			storetest.Must(t, err)
			if n := logs.FilterMessageSnippet("others can read").Len(); n != tt.warned {
				t.Errorf("warned %d times, want %d", n, tt.warned)
			}
			_, err = s.Change(t.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) { set[0].Name = "renamed"; return set, nil })
			storetest.Must(t, err)
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != tt.after {
				t.Errorf("mode %v, %v, want %v", info.Mode(), err, tt.after)
			}
		})
	}
}

func TestFollowEndsInTheMiddleOfABurst(t *testing.T) {
	follow(t, func(t *testing.T, w *following) {
		write(t, w.path, set("b"))
		w.signal() // and the end comes before it's quiet
	})
}
