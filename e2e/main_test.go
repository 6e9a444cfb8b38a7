package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"twinegress/internal/procgroup"
)

// What all tests share.
var (
	procs     = procgroup.NewStarter()
	sharedDir string
)

func TestMain(m *testing.M) {
	var err error
	if sharedDir, err = os.MkdirTemp("", "twinegress-e2e-"); err != nil {
		panic(err)
	}
	code := m.Run()
	closeCluster()
	procs.Close()
	_ = os.RemoveAll(sharedDir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// binary builds what is tested, once, and returns its path. It is not the test
// binary under another name, which would lack cmd/twinegress' main.
var binary = sync.OnceValues(func() (string, error) {
	if err := noteSources(); err != nil {
		return "", err
	}
	path := filepath.Join(sharedDir, "twinegress")
	args := []string{"build", "-o", path}
	cgo := "0"
	if raceDetector() {
		args, cgo = append(args, "-race"), "1"
	}
	if mode := testing.CoverMode(); mode != "" {
		args = append(args, "-cover", "-covermode="+mode, "-coverpkg=twinegress/...")
	}
	build := exec.CommandContext(context.Background(), "go", append(args, "../cmd/twinegress")...)
	build.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building twinegress: %w\n%s", err, out)
	}
	return path, nil
})

// raceDetector reports whether the binary is to have the race detector: if the
// tests have it, and not over a real Kafka, where what runs is what is shipped.
func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok || realKafka {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// noteSources reads the directories of all that the binary is built of. Go
// takes a test's result from its cache as long as no file has changed that the
// test itself has opened; those of a build that it starts don't count.
func noteSources() error {
	const dirs = `{{with .Module}}{{if .Main}}{{$.Dir}}{{"\n"}}{{end}}{{end}}`
	out, err := exec.CommandContext(context.Background(), "go", "list", "-deps", "-f", dirs, "../cmd/twinegress").Output()
	if err != nil {
		return fmt.Errorf("listing the sources of twinegress: %w", err)
	}
	noted := append(strings.Fields(string(out)), "../server/api/viewer") // which is embedded
	for _, dir := range noted {
		if _, err := os.ReadDir(dir); err != nil {
			return err
		}
	}
	for _, file := range []string{"../go.mod", "../go.sum"} {
		if _, err := os.Stat(file); err != nil {
			return err
		}
	}
	return nil
}
