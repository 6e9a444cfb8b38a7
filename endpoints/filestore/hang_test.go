package filestore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
	"twinegress/internal/file"
)

// hanging is a file system that stops answering: every read of it that begins
// while it hangs ends with it.
type hanging struct {
	mu   sync.Mutex
	gate chan struct{} // nil: it answers
}

func (h *hanging) read(path string) ([]byte, error) {
	h.mu.Lock()
	gate := h.gate
	h.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return file.Read(path)
}

func (h *hanging) hang() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate = make(chan struct{})
}

func (h *hanging) answer() {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(h.gate)
	h.gate = nil
}

func TestFollowWhileTheFileHangs(t *testing.T) {
	follow(t, func(t *testing.T, w *following) {
		var disk hanging
		w.readFile = disk.read
		disk.hang()
		write(t, w.path, set("b"))
		w.signal()
		after(w.debounce + hangsAfter - time.Nanosecond)
		if w.Stale() || w.logs.Len() != 0 {
			t.Errorf("a busy disk hangs: logged %v", w.logs.All())
		}
		after(time.Nanosecond)
		// What a scrape of the metrics and a reply of the API read.
		if !w.Stale() || pathsOf(w.Current()) != "a" {
			t.Errorf("stale %t, in force %q", w.Stale(), pathsOf(w.Current()))
		}
		after(time.Hour)
		if n := w.logs.FilterMessageSnippet("doesn't answer").Len(); n != 1 {
			t.Errorf("logged %d times that it hangs", n)
		}
		w.want(t)

		disk.answer()
		after(time.Second)
		w.want(t, "b")
		if w.Stale() || w.logs.FilterMessageSnippet("answers again").Len() != 1 {
			t.Errorf("stale %t, logged %v", w.Stale(), w.logs.All())
		}
	})
}

// The end of the process doesn't wait for a file that hangs.
func TestFollowEndsWhileTheFileHangs(t *testing.T) {
	follow(t, func(t *testing.T, w *following) {
		var disk hanging
		w.readFile = disk.read
		disk.hang()
		w.signal()
		after(w.debounce)
		w.stop()
		disk.answer()
	})
}

func TestChangeWhileTheFileHangs(t *testing.T) {
	for name, tt := range map[string]struct {
		reads   int // that are answered before it hangs
		unknown bool
		edits   int
		stored  string // once it answers
	}{
		"before the edit":      {0, false, 0, "a last"},
		"while it is replaced": {1, true, 1, "a hub last"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "endpoints.json")
			write(t, path, set("a"))
			synctest.Test(t, func(t *testing.T) {
				var disk hanging
				s := New(path, Options{})
				_, err := s.Load(t.Context())
				storetest.Must(t, err)
				reads := 0
				s.readFile = func(path string) ([]byte, error) {
					if reads++; reads == tt.reads+1 {
						disk.hang()
					}
					return disk.read(path)
				}
				edits := 0
				change := func(limit time.Duration, path string) error {
					ctx, cancel := context.WithTimeout(t.Context(), limit)
					defer cancel()
					_, err := s.Change(ctx, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
						edits++
						return storetest.Add(storetest.Hub(path, func(e *endpoints.Endpoint) { e.Path = path }))(set)
					})
					return err
				}
				err = change(20*time.Second, "hub")
				if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, endpoints.ErrUnknown) != tt.unknown ||
					!strings.Contains(err.Error(), path+" has not answered for 21s") {
					t.Errorf("changing: %v", err)
				}
				// Another one waits for its turn, and leaves no goroutine.
				if err := change(20*time.Second, "other"); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, endpoints.ErrUnknown) {
					t.Errorf("changing meanwhile: %v", err)
				}
				if edits != tt.edits {
					t.Errorf("%d edits, want %d", edits, tt.edits)
				}
				disk.answer()
				synctest.Wait()
				storetest.Must(t, change(20*time.Second, "last"))
				if got := pathsOf(s.Current()); got != tt.stored {
					t.Errorf("in force is %q, want %q", got, tt.stored)
				}
				if content, err := os.ReadFile(path); err != nil || strings.Count(string(content), `"path"`) != len(strings.Fields(tt.stored)) {
					t.Errorf("the file is %s, %v", content, err)
				}
			})
		})
	}
}
