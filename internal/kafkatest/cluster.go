// Package kafkatest runs a real Apache Kafka, for the integration tests and
// for `make kafka`: java processes on loopback, from the jars that `make
// kafka-jars` fetches. Every node is a broker and a controller. Brokers can be
// killed, stopped, suspended and started again one by one.
//
// No process outlives the program that started a cluster: Close kills the
// brokers, and they die with the program if it is killed.
package kafkatest

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"twinegress/internal/procgroup"
)

// Config describes a cluster.
type Config struct {
	Nodes int    // 0 is one
	Port  int    // of the first node's PLAINTEXT listener; 0 takes a free one
	Dir   string // data, configuration and logs; the data of an earlier run is kept
	// Listeners are further ones beside PLAINTEXT, by their security protocol:
	// SASL_SSL, SSL, SASL_PLAINTEXT.
	Listeners []string
	// Properties are set in the nodes' configuration, over the defaults.
	Properties map[string]string
	Format     []string // further arguments of the storage tool, such as --add-scram
	HeapMB     int      // of each node; 0 is 256
}

// Cluster is a running cluster. It has a method for each thing that a test does
// to a node or a topic.
type Cluster struct {
	cfg   Config
	id    string
	nodes []*node

	starter *procgroup.Starter
	done    sync.WaitGroup
}

// node is one broker; its configuration outlives its process.
type node struct {
	id        int
	dir       string
	listeners map[string]string // addresses by name
	process   *process          // nil while it is down
}

const controllerListener = "CONTROLLER"

//go:embed log4j2.xml
var log4j []byte

// Start starts a cluster and returns when every node serves. ctx bounds the
// start only.
func Start(ctx context.Context, cfg Config) (_ *Cluster, err error) {
	cfg.Nodes = max(cfg.Nodes, 1)
	if cfg.HeapMB == 0 {
		cfg.HeapMB = 256
	}
	c := &Cluster{cfg: cfg, starter: procgroup.NewStarter()}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.id, err = clusterID(cfg.Dir); err != nil {
		return nil, err
	}
	if err := c.plan(ctx); err != nil {
		return nil, err
	}
	err = each(c.nodes, func(n *node) error {
		if err := c.format(ctx, n); err != nil {
			return err
		}
		return c.start(ctx, n)
	})
	if err != nil {
		return nil, err
	}
	for _, n := range c.nodes {
		if err := n.process.await(ctx); err != nil {
			return nil, err
		}
	}
	return c, c.awaitBrokers(ctx)
}

// clusterID returns the id of the data in dir, or a new one.
func clusterID(dir string) (string, error) {
	file := filepath.Join(dir, "cluster.id")
	if b, err := os.ReadFile(file); err == nil {
		return string(b), nil
	}
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f // a leading dash would be an option for the tools
	id := base64.RawURLEncoding.EncodeToString(b)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	return id, os.WriteFile(file, []byte(id), 0o600)
}

// plan assigns an address to every listener and writes the configurations.
func (c *Cluster) plan(ctx context.Context) error {
	var voters []string
	names := append([]string{"PLAINTEXT", controllerListener}, c.cfg.Listeners...)
	for id := 1; id <= c.cfg.Nodes; id++ {
		n := &node{id: id, dir: filepath.Join(c.cfg.Dir, "node-"+strconv.Itoa(id)), listeners: make(map[string]string)}
		for i, name := range names {
			port := 0
			if c.cfg.Port != 0 {
				port = c.cfg.Port + (id-1)*len(names) + i
			}
			l, err := reserve(ctx, port)
			if err != nil {
				return err
			}
			defer func() { _ = l.Close() }() // after every listener has a port of its own
			n.listeners[name] = l.Addr().String()
		}
		voters = append(voters, strconv.Itoa(id)+"@"+n.listeners[controllerListener])
		c.nodes = append(c.nodes, n)
	}
	for _, n := range c.nodes {
		if err := c.configure(n, names, voters); err != nil {
			return err
		}
	}
	return nil
}

// reserve listens on a free port of 127.0.0.1. It is outside the range that the
// kernel assigns to outgoing connections, since the broker restarts on it.
func reserve(ctx context.Context, port int) (net.Listener, error) {
	var err error
	for range 100 {
		p := port
		if p == 0 {
			p = 12000 + mathrand.IntN(20000)
		}
		var l net.Listener
		l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err == nil {
			return l, nil
		}
		if port != 0 {
			break
		}
	}
	return nil, err
}

func (c *Cluster) configure(n *node, names, voters []string) error {
	replicas := strconv.Itoa(min(c.cfg.Nodes, 3))
	listeners := make([]string, len(names))
	protocols := []string{controllerListener + ":PLAINTEXT"}
	for i, name := range names {
		listeners[i] = name + "://" + n.listeners[name]
		if name != controllerListener {
			protocols = append(protocols, name+":"+name)
		}
	}
	properties := map[string]string{
		"process.roles":                  "broker,controller",
		"node.id":                        strconv.Itoa(n.id),
		"controller.quorum.voters":       strings.Join(voters, ","),
		"controller.listener.names":      controllerListener,
		"inter.broker.listener.name":     "PLAINTEXT",
		"listeners":                      strings.Join(listeners, ","),
		"listener.security.protocol.map": strings.Join(protocols, ","),
		"log.dirs":                       filepath.Join(n.dir, "data"),

		// Production's three replicas need three nodes.
		"offsets.topic.replication.factor":                 replicas,
		"transaction.state.log.replication.factor":         replicas,
		"transaction.state.log.min.isr":                    "1",
		"share.coordinator.state.topic.replication.factor": replicas,
		"share.coordinator.state.topic.min.isr":            "1",
		"default.replication.factor":                       replicas,
		"offsets.topic.num.partitions":                     "3",
		"transaction.state.log.num.partitions":             "3",
		"group.initial.rebalance.delay.ms":                 "0",
		// A misspelt topic must fail, not be created with one partition.
		"auto.create.topics.enable": "false",
	}
	maps.Copy(properties, c.cfg.Properties)
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&b, "%s=%s\n", key, strings.ReplaceAll(properties[key], "\n", "\\\n"))
	}
	if err := os.MkdirAll(n.dir, 0o750); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(n.file("server.properties"), []byte(b.String()), 0o600),
		os.WriteFile(n.file("log4j2.xml"), log4j, 0o600))
}

func (n *node) file(name string) string { return filepath.Join(n.dir, name) }

// each calls do for every node in parallel: most of a start is waiting.
func each(nodes []*node, do func(*node) error) error {
	errs := make([]error, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { errs[i] = do(n) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// awaitBrokers waits until the cluster's metadata has every node and each node
// answers.
func (c *Cluster) awaitBrokers(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addrs()...))
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		// Not through kadm, which answers from its cache.
		request := kmsg.NewPtrMetadataRequest()
		request.Topics = []kmsg.MetadataRequestTopic{}
		meta, err := request.RequestWith(ctx, client)
		if err == nil && len(meta.Brokers) == len(c.nodes) && meta.ControllerID >= 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kafka: not all of the %d brokers are there: %w", len(c.nodes), errors.Join(context.Cause(ctx), err))
		case <-tick.C:
		}
	}
}

// Addrs returns the addresses of the PLAINTEXT listener.
func (c *Cluster) Addrs() []string { return c.ListenerAddrs("PLAINTEXT") }

// ListenerAddrs returns the addresses of a listener by its name.
func (c *Cluster) ListenerAddrs(name string) []string {
	addrs := make([]string, len(c.nodes))
	for i, n := range c.nodes {
		addrs[i] = n.listeners[name]
	}
	return addrs
}

// Nodes returns the nodes' ids, which are the brokers' ids too.
func (c *Cluster) Nodes() []int32 {
	ids := make([]int32, len(c.nodes))
	for i, n := range c.nodes {
		ids[i] = int32(n.id)
	}
	return ids
}

// Kill kills a node.
func (c *Cluster) Kill(id int32) error {
	if err := c.signal(id, syscall.SIGKILL); err != nil {
		return err
	}
	n := c.nodes[id-1]
	<-n.process.ended
	n.process = nil
	return nil
}

// Stop shuts a node down: it moves its partitions to other nodes first. If ctx
// ends before that, the node is killed.
func (c *Cluster) Stop(ctx context.Context, id int32) error {
	if err := c.signal(id, syscall.SIGTERM); err != nil {
		return err
	}
	n := c.nodes[id-1]
	select {
	case <-n.process.ended:
		n.process = nil
		return nil
	case <-ctx.Done():
		return c.Kill(id)
	}
}

// Suspend makes a node unreachable without closing its connections, like a
// network that drops all packets.
func (c *Cluster) Suspend(id int32) error { return c.signal(id, syscall.SIGSTOP) }

// Resume ends a Suspend.
func (c *Cluster) Resume(id int32) error { return c.signal(id, syscall.SIGCONT) }

func (c *Cluster) node(id int32) (*node, error) {
	if id < 1 || int(id) > len(c.nodes) {
		return nil, fmt.Errorf("kafka: there is no node %d", id)
	}
	return c.nodes[id-1], nil
}

func (c *Cluster) signal(id int32, s syscall.Signal) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	if n.process == nil {
		return fmt.Errorf("kafka: node %d is down", id)
	}
	return n.process.signal(s)
}

// Restart starts a node that was killed or stopped and returns when it serves.
func (c *Cluster) Restart(ctx context.Context, id int32) error {
	n, err := c.node(id)
	if err != nil {
		return err
	}
	if n.process != nil {
		return fmt.Errorf("kafka: node %d runs", id)
	}
	if err := c.start(ctx, n); err != nil {
		return err
	}
	return n.process.await(ctx)
}

// Ended returns a channel that is closed when one of the running processes has
// ended.
func (c *Cluster) Ended() <-chan struct{} {
	ended := make(chan struct{})
	var once sync.Once
	for _, n := range c.nodes {
		if p := n.process; p != nil {
			c.done.Go(func() {
				<-p.ended
				once.Do(func() { close(ended) })
			})
		}
	}
	return ended
}

// Close kills every node. Their data is kept.
func (c *Cluster) Close() {
	for _, n := range c.nodes {
		if n.process != nil {
			_ = n.process.signal(syscall.SIGKILL) // it may have ended already
			<-n.process.ended
			n.process = nil
		}
	}
	c.done.Wait()
	c.starter.Close()
}
