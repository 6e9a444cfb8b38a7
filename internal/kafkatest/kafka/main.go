// Command kafka runs an Apache Kafka in the foreground, until it is stopped
// with Ctrl-C: `make kafka`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/kafkatest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kafka:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	nodes := flag.Int("nodes", 1, "brokers: 1 or 3")
	port := flag.Int("port", 9092, "port of the first one; the others' follow")
	dir := flag.String("dir", "", "directory of the data and the logs (required); what is there goes on")
	topic := flag.String("topic", "digitaltwins-events", `topic that is created; "" is none`)
	partitions := flag.Int("partitions", 16, "its partitions")
	heap := flag.Int("heap", 512, "heap of each broker, MiB")
	flag.Parse()
	if *dir == "" {
		return errors.New("-dir is missing")
	}
	starting, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cluster, err := kafkatest.Start(starting, kafkatest.Config{
		Nodes: *nodes, Port: *port, Dir: *dir, HeapMB: *heap,
	})
	if err != nil {
		return err
	}
	defer cluster.Close()
	if *topic != "" {
		if err := create(starting, cluster.Addrs(), *topic, *partitions); err != nil {
			return err
		}
	}
	fmt.Printf("Kafka serves on %s; logs in %s. Ctrl-C stops it.\n", strings.Join(cluster.Addrs(), ","), *dir)
	select {
	case <-cluster.Ended():
		return fmt.Errorf("a node ended by itself: see the logs in %s", *dir)
	case <-ctx.Done():
	}
	// In parallel: the last of three could move its partitions to no other node.
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	var stops sync.WaitGroup
	for _, id := range cluster.Nodes() {
		stops.Go(func() { _ = cluster.Stop(stopping, id) }) // Close kills the rest
	}
	stops.Wait()
	return nil
}

func create(ctx context.Context, addrs []string, topic string, partitions int) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	topics, err := admin.ListTopics(ctx, topic)
	if err != nil || topics.Has(topic) {
		return err
	}
	_, err = admin.CreateTopic(ctx, int32(partitions), -1, nil, topic)
	return err
}
