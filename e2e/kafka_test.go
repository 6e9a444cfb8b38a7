//go:build integration

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"twinegress/internal/kafkatest"
)

const realKafka = true

// shared is a cluster of one node that most tests use.
var shared *kafkatest.Cluster

var startShared = sync.OnceValue(func() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	shared, err = kafkatest.Start(ctx, kafkatest.Config{Dir: filepath.Join(sharedDir, "kafka"), Properties: quick(), HeapMB: 384})
	return err
})

func closeCluster() {
	if shared != nil {
		shared.Close()
	}
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

// brokers are those of the shared cluster, or of KAFKA_BROKERS.
func brokers(t testing.TB) []string {
	t.Helper()
	if given := givenBrokers(); given != nil {
		return given
	}
	if err := startShared(); err != nil {
		t.Fatal(err)
	}
	return shared.Addrs()
}

// ownCluster is a cluster whose nodes the test may stop.
func ownCluster(t testing.TB, cfg kafkatest.Config) *kafkatest.Cluster {
	t.Helper()
	if givenBrokers() != nil {
		t.Skip("KAFKA_BROKERS names the brokers, and this test stops its own")
	}
	cfg.Dir = t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c, err := kafkatest.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}
