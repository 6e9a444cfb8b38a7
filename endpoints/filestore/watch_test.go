package filestore

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

// watched is a store that watches a real directory. Every set and every error
// arrives on a channel, so that no test waits for time to pass.
type watched struct {
	sets   chan string
	errors lines
}

// lines is where a logger writes to.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// watch starts Watch, which ends with the test. recheck is out of reach: what
// arrives was noticed.
func watch(t *testing.T, path string) *watched {
	t.Helper()
	w := &watched{sets: make(chan string, 100), errors: make(lines, 100)}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(w.errors), zap.ErrorLevel)
	s := New(path, Options{Logger: zap.New(core)})
	s.debounce, s.recheck = time.Millisecond, time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Watch(ctx, func(eps []endpoints.Endpoint) { w.sets <- pathsOf(eps) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch ends with %v", err)
		}
	})
	return w
}

func (w *watched) want(t *testing.T, paths string) {
	t.Helper()
	await(t, w.sets, func(got string) bool { return got == paths })
}

func (w *watched) wantError(t *testing.T, part string) {
	t.Helper()
	await(t, w.errors, func(got string) bool { return strings.Contains(got, part) })
}

// await blocks until the value that a test waits for has come.
func await[T any](t *testing.T, values <-chan T, is func(T) bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case got := <-values:
			if is(got) {
				return
			}
			t.Logf("passing over %v", got)
		case <-timeout:
			t.Fatal("what is waited for never came")
		}
	}
}

const missing = "does not exist"

// watchA is watch, of a file that holds set("a").
func watchA(t *testing.T, path string) *watched {
	t.Helper()
	write(t, path, set("a"))
	w := watch(t, path)
	w.want(t, "a")
	return w
}

// rename puts content into place as careful editors do.
func rename(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".tmp", content)
	storetest.Must(t, os.Rename(path+".tmp", path))
}

func TestWatch(t *testing.T) {
	for name, f := range map[string]func(t *testing.T, dir, path string){
		"written in place": func(t *testing.T, dir, path string) {
			w := watchA(t, path)
			write(t, path, set("b"))
			w.want(t, "b")
		},
		"renamed over, again and again": func(t *testing.T, dir, path string) {
			w := watchA(t, path)
			for _, p := range []string{"b", "c", "d"} {
				rename(t, path, set(p))
				w.want(t, p)
			}
		},
		"old one moved away, as vim does": func(t *testing.T, dir, path string) {
			w := watchA(t, path)
			storetest.Must(t, os.Rename(path, path+"~"))
			write(t, path, set("b"))
			storetest.Must(t, os.Remove(path+"~"))
			w.want(t, "b")
		},
		"created after the start, its directory too": func(t *testing.T, dir, _ string) {
			path := filepath.Join(dir, "x", "y", "e.json")
			w := watch(t, path)
			w.wantError(t, missing)
			storetest.Must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			write(t, path, set("a"))
			w.want(t, "a")
			rename(t, path, set("b"))
			w.want(t, "b")
		},
		"directory replaced": func(t *testing.T, dir, _ string) {
			path := filepath.Join(dir, "x", "e.json")
			storetest.Must(t, os.Mkdir(filepath.Join(dir, "x"), 0o700))
			w := watchA(t, path)
			storetest.Must(t, os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "old")))
			w.wantError(t, missing)
			storetest.Must(t, os.Mkdir(filepath.Join(dir, "x"), 0o700))
			write(t, path, set("b"))
			w.want(t, "b")
			rename(t, path, set("c")) // and the new directory is followed
			w.want(t, "c")
		},
		"directory swapped for another": func(t *testing.T, dir, _ string) {
			x, next := filepath.Join(dir, "x"), filepath.Join(dir, "next")
			path := filepath.Join(x, "e.json")
			storetest.Must(t, os.Mkdir(x, 0o700))
			storetest.Must(t, os.Mkdir(next, 0o700))
			write(t, path, set("a"))
			write(t, filepath.Join(next, "e.json"), set("b"))
			w := watch(t, path)
			w.want(t, "a")
			storetest.Must(t, os.Rename(x, filepath.Join(dir, "old")))
			storetest.Must(t, os.Rename(next, x))
			w.want(t, "b")
			rename(t, path, set("c"))
			w.want(t, "c")
		},
		// As the kubelet mounts a ConfigMap: e.json -> ..data/e.json, and
		// ..data -> ..<time>, swapped by a rename; then the old directory goes.
		"Kubernetes ConfigMap": func(t *testing.T, dir, path string) {
			data := filepath.Join(dir, "..data")
			publish := func(version, content string) {
				at := filepath.Join(dir, ".."+version)
				storetest.Must(t, os.Mkdir(at, 0o700))
				write(t, filepath.Join(at, "e.json"), content)
				storetest.Must(t, os.Symlink(".."+version, data+"_tmp"))
				old, _ := os.Readlink(data)
				storetest.Must(t, os.Rename(data+"_tmp", data))
				if old != "" {
					storetest.Must(t, os.RemoveAll(filepath.Join(dir, old)))
				}
			}
			publish("1", set("a"))
			storetest.Must(t, os.Symlink(filepath.Join("..data", "e.json"), path))
			w := watch(t, path)
			w.want(t, "a")
			publish("2", set("b"))
			w.want(t, "b")
			publish("3", set("c"))
			w.want(t, "c")
		},
		"symlinks into other directories": func(t *testing.T, dir, _ string) {
			for _, d := range []string{"conf", "releases", "releases/1", "releases/2"} {
				storetest.Must(t, os.Mkdir(filepath.Join(dir, d), 0o700))
			}
			write(t, filepath.Join(dir, "releases/1/e.json"), set("a"))
			write(t, filepath.Join(dir, "releases/2/e.json"), set("c"))
			current := filepath.Join(dir, "current")
			storetest.Must(t, os.Symlink(filepath.Join(dir, "releases/1"), current))
			path := filepath.Join(dir, "conf", "e.json")
			storetest.Must(t, os.Symlink("../current/e.json", path))
			w := watch(t, path)
			w.want(t, "a")
			rename(t, filepath.Join(dir, "releases/1/e.json"), set("b")) // at the far end
			w.want(t, "b")
			storetest.Must(t, os.Symlink(filepath.Join(dir, "releases/2"), current+".tmp"))
			storetest.Must(t, os.Rename(current+".tmp", current)) // in the middle
			w.want(t, "c")
			rename(t, filepath.Join(dir, "releases/2/e.json"), set("d"))
			w.want(t, "d")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			f(t, dir, filepath.Join(dir, "e.json"))
		})
	}
}

func TestDirsOf(t *testing.T) {
	// The temporary directory may itself lie behind a symlink.
	dir, err := filepath.EvalSymlinks(t.TempDir())
	storetest.Must(t, err)
	at := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	storetest.Must(t, os.MkdirAll(at("a", "b"), 0o700))
	write(t, at("a", "b", "f"), "")
	storetest.Must(t, os.Symlink("b", at("a", "link")))
	storetest.Must(t, os.Symlink(at("a", "link", "f"), at("f")))
	storetest.Must(t, os.Symlink("round", at("round")))
	for path, want := range map[string][]string{
		at("a", "b", "f"):       {at("a", "b")},
		at("a", "link", "f"):    {at("a"), at("a", "b")},
		at("f"):                 {dir, at("a"), at("a", "b")},
		at("a", "none"):         {at("a")},
		at("none", "deep", "f"): {dir},
		at("round"):             {dir},
		at("a", "b", "f", "x"):  {at("a", "b", "f")},
	} {
		if got := dirsOf(path); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("dirsOf(%s)\n got %v\nwant %v", path, got, want)
		}
	}
}
