package emulator

import (
	"fmt"
	"net"
	"strconv"

	"github.com/twmb/franz-go/pkg/kfake"
)

// KafkaConfig configures the embedded broker.
type KafkaConfig struct {
	// Listen is the broker's address, 127.0.0.1 and a port; "" is an ephemeral port.
	Listen string
	// Topics maps each topic to its number of partitions; 0 is one.
	Topics map[string]int
	// MaxMessageBytes is the largest produce batch; 0 is Kafka's 1 MiB.
	MaxMessageBytes int
	// DataDir stores the log on disk, so that it survives a restart; "" is memory.
	DataDir string
	// RetentionBytes bounds each partition of the Topics. Without it the log grows
	// without bound: kfake deletes nothing by default.
	RetentionBytes int64
	// Network, if set, is between the broker and all its clients.
	Network *Network
}

// Kafka is a running embedded broker.
type Kafka struct {
	// Cluster has kfake's own controls, for tests.
	Cluster *kfake.Cluster
}

// StartKafka starts a broker. Stop it with Close.
func StartKafka(cfg KafkaConfig) (*Kafka, error) {
	port := 0
	if cfg.Listen != "" {
		host, p, err := net.SplitHostPort(cfg.Listen)
		if err != nil {
			return nil, fmt.Errorf("emulator: kafka address %q: %w", cfg.Listen, err)
		}
		if host != "127.0.0.1" && host != "localhost" && host != "" { // kfake listens on no other
			return nil, fmt.Errorf("emulator: kafka address %q: the embedded broker listens on 127.0.0.1 only", cfg.Listen)
		}
		if port, err = strconv.Atoi(p); err != nil {
			return nil, fmt.Errorf("emulator: kafka address %q: the port is no number", cfg.Listen)
		}
	}
	broker := map[string]string{}
	opts := []kfake.Opt{kfake.NumBrokers(1), kfake.Ports(port)}
	if cfg.Network != nil {
		opts = append(opts, kfake.ListenFn(func(network, address string) (net.Listener, error) {
			l, err := net.Listen(network, address) //nolint:noctx // as kfake itself does
			return gatedListener{l, cfg.Network}, err
		}))
	}
	topicConfig := map[string]string{}
	if cfg.MaxMessageBytes > 0 {
		broker["message.max.bytes"] = strconv.Itoa(cfg.MaxMessageBytes)
		// A real broker returns the inherited value in the topic's own description; kfake doesn't.
		topicConfig["max.message.bytes"] = broker["message.max.bytes"]
	}
	if cfg.RetentionBytes > 0 {
		// kfake applies retention only to a topic with a retention of its own, every
		// log.cleaner.backoff.ms, whose default is an hour.
		broker["log.cleaner.backoff.ms"] = "1000"
		topicConfig["retention.bytes"] = strconv.FormatInt(cfg.RetentionBytes, 10)
		// Only whole segments are deleted, so a segment has to be small against the retention.
		topicConfig["segment.bytes"] = strconv.FormatInt(max(cfg.RetentionBytes/8, 64<<10), 10)
	}
	if cfg.DataDir != "" {
		opts = append(opts, kfake.DataDir(cfg.DataDir))
	}
	opts = append(opts, kfake.BrokerConfigs(broker))
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, fmt.Errorf("emulator: start kafka on %q: %w", cfg.Listen, err)
	}
	for topic, n := range cfg.Topics {
		if c.TopicInfo(topic) != nil {
			continue // it is in the DataDir
		}
		if err := c.CreateTopic(topic, int32(max(n, 1)), topicConfig); err != nil {
			c.Close()
			return nil, fmt.Errorf("emulator: create kafka topic %q: %w", topic, err)
		}
	}
	return &Kafka{Cluster: c}, nil
}

// Addrs returns the broker's addresses, for ingest.brokers.
func (k *Kafka) Addrs() []string { return k.Cluster.ListenAddrs() }

// Close stops the broker.
func (k *Kafka) Close() { k.Cluster.Close() }
