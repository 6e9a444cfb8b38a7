//go:build integration

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"twinegress/internal/kafkatest"
	"twinegress/internal/procgroup"
)

// What all tests share: the binary, and a cluster of one node.
var (
	binary string
	procs  *procgroup.Starter

	sharedOnce sync.Once
	shared     *kafkatest.Cluster
	sharedErr  error
	sharedDir  string
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := 1
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
	} else {
		code = m.Run()
	}
	if shared != nil {
		shared.Close()
	}
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

// prepare builds what is tested. Not the test binary itself under another
// name: what runs must be what is shipped, without the race detector's cost.
func prepare() (err error) {
	procs = procgroup.NewStarter()
	if sharedDir, err = os.MkdirTemp("", "twinegress-e2e-"); err != nil {
		return err
	}
	binary = filepath.Join(sharedDir, "twinegress")
	build := exec.CommandContext(context.Background(), "go", "build", "-trimpath", "-o", binary, "../cmd/twinegress")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building twinegress: %w\n%s", err, out)
	}
	return nil
}

// givenBrokers are those of KAFKA_BROKERS.
func givenBrokers() []string {
	if b := os.Getenv("KAFKA_BROKERS"); b != "" {
		return strings.Split(b, ",")
	}
	return nil
}

// quick are settings of a broker that notices in seconds what takes it a
// minute in production.
func quick() map[string]string {
	return map[string]string{
		"group.consumer.min.session.timeout.ms":    "6000",
		"group.consumer.session.timeout.ms":        "6000",
		"group.consumer.min.heartbeat.interval.ms": "1000",
		"group.consumer.heartbeat.interval.ms":     "1000",
		"log.retention.check.interval.ms":          "1000",
		"log.cleaner.backoff.ms":                   "1000",
	}
}

// brokers are those of a cluster of one node that every test shares, or of KAFKA_BROKERS.
func brokers(t testing.TB) []string {
	t.Helper()
	if given := givenBrokers(); given != nil {
		return given
	}
	sharedOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		shared, sharedErr = kafkatest.Start(ctx, kafkatest.Config{
			Dir: filepath.Join(sharedDir, "kafka"), Properties: quick(), HeapMB: 384,
		})
	})
	if sharedErr != nil {
		t.Fatal(sharedErr)
	}
	return shared.Addrs()
}

// ownCluster is a cluster whose nodes the test may stop.
func ownCluster(t testing.TB, cfg kafkatest.Config) *kafkatest.Cluster {
	t.Helper()
	if givenBrokers() != nil {
		t.Skip("KAFKA_BROKERS names the brokers, and this test stops its own")
	}
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c, err := kafkatest.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
