//go:build unix

package file

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"twinegress/internal/certtest"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, size int64) {
		t.Helper()
		if err := os.WriteFile(at(name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(at(name), size); err != nil { // sparse
			t.Fatal(err)
		}
	}
	write("empty", 0)
	write("one", 1)
	write("below", MaxSize-1)
	write("largest", MaxSize)
	write("above", MaxSize+1)
	write("huge", 1<<40)
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket, err := net.Listen("unix", at("socket"))
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for link, to := range map[string]string{"link": "one", "link to pipe": "pipe", "cycle": "cycle"} {
		if err := os.Symlink(at(to), at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]struct {
		size int
		err  string
	}{
		at("empty"):        {},
		at("one"):          {size: 1},
		at("link"):         {size: 1},
		at("below"):        {size: MaxSize - 1},
		at("largest"):      {size: MaxSize},
		at("above"):        {err: "is larger than 64 MiB"},
		at("huge"):         {err: "is larger than 64 MiB"},
		at("pipe"):         {err: "is a pipe, not a regular file"},
		at("link to pipe"): {err: "is a pipe, not a regular file"},
		at("socket"):       {err: "is a socket, not a regular file"},
		dir:                {err: "is a directory, not a regular file"},
		"/dev/zero":        {err: "is a device, not a regular file"},
		at("missing"):      {err: "no such file"},
		at("cycle"):        {err: "too many levels of symbolic links"},
	} {
		data, err := Read(path)
		switch {
		case want.err == "" && (err != nil || len(data) != want.size):
			t.Errorf("%s: %d bytes, %v; want %d bytes", path, len(data), err, want.size)
		case want.err != "" && (err == nil || !strings.Contains(err.Error(), want.err) || !strings.Contains(err.Error(), path)):
			t.Errorf("%s: %v; want an error with %q and the path", path, err, want.err)
		}
	}
}

func TestKeyPair(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certtest.Write(t, cert, key)
	pair, err := KeyPair(cert, key)
	if err != nil || len(pair.Certificate) != 1 {
		t.Fatalf("%v, %v", pair, err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, files := range [][2]string{{pipe, key}, {cert, pipe}} {
		if _, err := KeyPair(files[0], files[1]); err == nil || !strings.Contains(err.Error(), pipe+": is a pipe") {
			t.Errorf("%v: %v", files, err)
		}
	}
}
