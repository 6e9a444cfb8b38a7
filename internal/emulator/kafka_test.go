package emulator_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/emulator"
)

func produce(t *testing.T, k *emulator.Kafka, topic string, values ...string) error {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(k.Addrs()...), kgo.ProducerBatchMaxBytes(16<<20),
		kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, v := range values {
		if err := c.ProduceSync(within(t, 5*time.Second), &kgo.Record{Topic: topic, Value: []byte(v)}).FirstErr(); err != nil {
			return err
		}
	}
	return nil
}

func TestKafka(t *testing.T) {
	cfg := emulator.KafkaConfig{Topics: map[string]int{"events": 8}, MaxMessageBytes: 4 << 20, DataDir: t.TempDir()}
	k, err := emulator.StartKafka(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := produce(t, k, "events", "a", strings.Repeat("b", 3<<20)); err != nil {
		t.Error(err)
	}
	if err := produce(t, k, "events", strings.Repeat("b", 5<<20)); err == nil {
		t.Error("5 MiB were taken")
	}
	cfg.Listen = k.Addrs()[0]
	k.Close()

	// A broker with the same data directory has the log, on the configured address.
	if k, err = emulator.StartKafka(cfg); err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if n := len(k.Cluster.PartitionInfos("events")); n != 8 || k.Addrs()[0] != cfg.Listen {
		t.Errorf("%d partitions at %v", n, k.Addrs())
	}
	if p := k.Cluster.PartitionInfo("events", 0); p == nil || p.HighWatermark != 2 {
		t.Errorf("partition %+v", p)
	}
}

func TestKafkaRetention(t *testing.T) {
	k, err := emulator.StartKafka(emulator.KafkaConfig{Topics: map[string]int{"events": 1}, RetentionBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for range 16 {
		if err := produce(t, k, "events", strings.Repeat("b", 500_000)); err != nil {
			t.Fatal(err)
		}
	}
	k.Cluster.ApplyRetention()
	if p := k.Cluster.PartitionInfo("events", 0); p.LogStartOffset < 12 {
		t.Errorf("the log starts at %d of %d", p.LogStartOffset, p.HighWatermark)
	}
}

// A broker that is cut off refuses, one that is frozen says nothing, and both are
// back with what they had.
func TestKafkaNetwork(t *testing.T) {
	var network emulator.Network
	k, err := emulator.StartKafka(emulator.KafkaConfig{Topics: map[string]int{"events": 1}, Network: &network})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	dial := func() net.Conn {
		t.Helper()
		c, err := new(net.Dialer).DialContext(within(t, 5*time.Second), "tcp", k.Addrs()[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	// An ApiVersions request of version 0, in a frame of 10 bytes.
	ask := func(c net.Conn) error {
		if _, err := c.Write([]byte{0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff}); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		_, err := c.Read(make([]byte, 64<<10))
		return err
	}
	open := dial()
	if err := ask(open); err != nil {
		t.Fatal(err)
	}

	network.Freeze()
	for name, c := range map[string]net.Conn{"open": open, "new": dial()} {
		if err := ask(c); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("frozen, %s: %v", name, err)
		}
	}
	network.Restore()
	if err := open.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Read(make([]byte, 64<<10)); err != nil { // the answer that was held
		t.Errorf("thawed: %v", err)
	}

	network.Cut()
	for name, c := range map[string]net.Conn{"open": open, "new": dial()} {
		if err := ask(c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("cut, %s: %v", name, err)
		}
	}
	network.Restore()
	if err := ask(dial()); err != nil {
		t.Errorf("restored: %v", err)
	}
}
