//go:build unix

package server

import (
	"syscall"
	"testing"
)

// Where descriptors are few, sending has most of them.
func TestConnectionsAndDescriptors(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	for n, want := range map[uint64]int{20: minConnections, 64: minConnections, 72: 9, 256: 32, 512: 64, 8 * APIConnections: APIConnections, 1 << 14: APIConnections} {
		if n > before.Max {
			t.Logf("%d descriptors can't be had here", n)
			continue
		}
		few := before
		few.Cur = n
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
			t.Fatal(err)
		}
		if got := limit(nil, "", APIConnections, nil).most; got != want {
			t.Errorf("%d connections with %d descriptors, want %d", got, n, want)
		}
	}
}
