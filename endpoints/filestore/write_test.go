package filestore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

func loaded(t *testing.T, path string) *Store {
	t.Helper()
	s := New(path, Options{})
	s.recheck = time.Hour
	_, err := s.Load(t.Context())
	storetest.Must(t, err)
	return s
}

// The written file is one that a user would want to edit.
func TestWhatIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, set("first"))
	storetest.Must(t, os.Chmod(path, 0o640))
	s := loaded(t, path)
	_, err := s.Change(t.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		set[0].LastUpdated = time.Now() // not edit's to say
		return append(set, storetest.Grid("", func(e *endpoints.Endpoint) {
			e.ID, e.Overflow = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d", endpoints.OverflowDrop
		})), nil
	})
	storetest.Must(t, err)
	cur := s.Current()
	at := func(i int) string { return cur[i].LastUpdated.Format(time.RFC3339Nano) }
	want := fmt.Sprintf(`[
  {
    "id": "%s",
    "name": "first",
    "type": "EventHub",
    "eventTypes": [
      "SensorChange"
    ],
    "connectionString": "%s",
    "path": "first",
    "lastUpdatedUtc": "%s"
  },
  {
    "id": "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d",
    "type": "EventGrid",
    "eventTypes": [
      "SpaceChange"
    ],
    "connectionString": "%s",
    "secondaryConnectionString": "%s",
    "path": "topic.westus-1.eventgrid.azure.net",
    "overflow": "drop",
    "lastUpdatedUtc": "%s"
  }
]
`, cur[0].ID, storetest.Conn1, at(0), storetest.Key1, storetest.Key2, at(1))
	if got := contents(t, path); got != want {
		t.Errorf("written:\n%s\nwant:\n%s", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("keys in the clear, mode %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left lying about: %v, %v", left, err)
	}
	// Watch begins with a change from before it.
	ctx, stop := context.WithCancel(t.Context())
	var got []endpoints.Endpoint
	storetest.Must(t, s.Watch(ctx, func(set []endpoints.Endpoint) { got = set; stop() }))
	if pathsOf(got) != pathsOf(cur) {
		t.Errorf("delivered %v", got)
	}
	for i, e := range loaded(t, path).Current() {
		if len(endpoints.Diff(e, cur[i]).Fields) > 0 || !e.LastUpdated.Equal(cur[i].LastUpdated) {
			t.Errorf("after a restart: %s of %s, was %s of %s", e, e.LastUpdated, cur[i], cur[i].LastUpdated)
		}
	}
}

func TestChangeKeepsAnEditByHand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, set("a"))
	s := loaded(t, path)

	write(t, path, set("a", "b")) // without a Watch
	got, err := s.Change(t.Context(), storetest.Add(storetest.Hub("c", func(e *endpoints.Endpoint) { e.Path = "c" })))
	storetest.Must(t, err)
	if pathsOf(got) != "a b c" {
		t.Errorf("an edit from before: %s", pathsOf(got))
	}

	calls := 0
	got, err = s.Change(t.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
		if calls++; calls == 1 {
			write(t, path, strings.Replace(contents(t, path), `"path": "b"`, `"path": "B"`, 1))
		}
		set[0].Path = "A"
		return set, nil
	})
	storetest.Must(t, err)
	if pathsOf(got) != "A B c" || calls != 2 || pathsOf(loaded(t, path).Current()) != "A B c" {
		t.Errorf("an edit meanwhile: %s after %d calls", pathsOf(got), calls)
	}

	for name, broken := range map[string]string{"half a file": set("a")[:20], "not valid": "[{}]"} {
		write(t, path, broken)
		_, err = s.Change(t.Context(), func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) { return nil, nil })
		if _, ok := errors.AsType[endpoints.ValidationErrors](err); ok || err == nil || !strings.Contains(err.Error(), "nothing is written over") || contents(t, path) != broken {
			t.Errorf("%s: %v, and the file holds %q", name, err, contents(t, path))
		}
		if pathsOf(s.Current()) != "A B c" {
			t.Errorf("%s: in force is %s", name, pathsOf(s.Current()))
		}
	}
	storetest.Must(t, os.Remove(path))
	if _, err = s.Change(t.Context(), storetest.Add(storetest.Hub(""))); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that was removed came back: %v", err)
	}
}

func TestChangeThroughALink(t *testing.T) {
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real", "e.json"), filepath.Join(dir, "e.json")
	storetest.Must(t, os.Mkdir(filepath.Dir(real), 0o700))
	write(t, real, set("a"))
	storetest.Must(t, os.Symlink(real, link))
	_, err := loaded(t, link).Change(t.Context(), storetest.Add(storetest.Hub("")))
	storetest.Must(t, err)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 || pathsOf(loaded(t, real).Current()) != "a hub" {
		t.Errorf("the link became a file, or what it leads to did not change: %v, %v", info, err)
	}
}

func TestReadOnly(t *testing.T) {
	if os.Geteuid() == 0 { // root may write everywhere
		const nobody = 65534
		storetest.Must(t, syscall.Seteuid(nobody))
		defer func() { storetest.Must(t, syscall.Seteuid(0)) }()
	}
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, set("a"))
	s := loaded(t, path)
	for _, tc := range []struct {
		err  error
		want string
	}{
		{syscall.EROFS, "read-only file system"},
		{syscall.EBUSY, "mount its directory instead"},
		{syscall.EACCES, "must not be written by this user"},
	} {
		err := s.unwritable(&fs.PathError{Op: "open", Path: path, Err: tc.err})
		if !errors.Is(err, endpoints.ErrReadOnly) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v: %v", tc.err, err)
		}
	}
	if err := s.unwritable(syscall.ENOSPC); errors.Is(err, endpoints.ErrReadOnly) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}

	storetest.Must(t, os.Chmod(filepath.Dir(path), 0o500))
	defer func() { _ = os.Chmod(filepath.Dir(path), 0o700) }()
	if _, err := s.Change(t.Context(), storetest.Add(storetest.Hub(""))); !errors.Is(err, endpoints.ErrReadOnly) {
		t.Errorf("a directory that can't be written: %v", err)
	}
}

// An edit by hand right after a write may be read before the write returns: the
// last content of the file is in force, not the written one.
func TestEditRightBehindAWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, set("a"))
	s := loaded(t, path)
	for range 20 {
		before := contents(t, path)
		var editor sync.WaitGroup
		editor.Go(func() {
			for contents(t, path) == before && t.Context().Err() == nil {
			}
			write(t, path+".new", set("edited"))
			storetest.Must(t, os.Rename(path+".new", path))
			s.reload()
		})
		_, err := s.Change(t.Context(), func([]endpoints.Endpoint) ([]endpoints.Endpoint, error) {
			return []endpoints.Endpoint{storetest.Hub("written")}, nil
		})
		storetest.Must(t, err)
		editor.Wait()
		if cur := s.Current(); len(cur) != 1 || cur[0].Name != "edited" {
			t.Fatalf("in force is %v, while the file has what was edited by hand", cur)
		}
	}
}

// Two processes write one file, and a third watches it.
func TestOneFileInSeveralProcesses(t *testing.T) {
	const variable, changes = "TWINEGRESS_TEST_WRITE_TO", 20
	if path := os.Getenv(variable); path != "" { // this is one of them
		s := loaded(t, path)
		for range changes {
			_, err := s.Change(t.Context(), storetest.Add(storetest.Hub("")))
			storetest.Must(t, err)
		}
		return
	}
	path := filepath.Join(t.TempDir(), "endpoints.json")
	write(t, path, "[]")
	self, err := os.Executable()
	storetest.Must(t, err)

	watching := loaded(t, path)
	ctx, cancel := context.WithCancel(t.Context())
	sizes, done := make(chan int, 1000), make(chan error, 1)
	go func() { done <- watching.Watch(ctx, func(set []endpoints.Endpoint) { sizes <- len(set) }) }()

	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestOneFileInSeveralProcesses$", "-test.count=1")
			cmd.Env = append(os.Environ(), variable+"="+path)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	if n := len(loaded(t, path).Current()); n != 2*changes {
		t.Errorf("%d endpoints in the file, want %d", n, 2*changes)
	}
	timeout := time.After(20 * time.Second)
	for n := 0; n != 2*changes; {
		select {
		case n = <-sizes:
		case <-timeout:
			t.Fatalf("the watcher saw %d endpoints in the end", n)
		}
	}
	cancel()
	storetest.Must(t, <-done)
}
