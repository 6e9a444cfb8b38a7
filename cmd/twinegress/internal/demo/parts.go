package demo

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/internal/emulator"
	"twinegress/server/api"
)

const (
	partitions = 8
	// retention bounds each partition of the embedded broker, on disk. It is
	// much larger than maxUnread.
	retention = 16 << 20
	// behindRetention is that of a demo in which an endpoint is behind, so that its
	// events wait long enough, also if the feed is as fast as it can be.
	behindRetention = 8 * retention
)

// demoSet is the demo's endpoints. Each has an emulated hub or topic of its own
// name, so that the counts of both can be compared.
var demoSet = []endpoints.Endpoint{
	{Name: "twin-events", Type: endpoints.TypeEventHub, EventTypes: []string{
		endpoints.SensorChange, endpoints.SpaceChange, endpoints.TopologyOperation, endpoints.UdfCustom,
	}},
	{Name: "sensor-values", Type: endpoints.TypeEventHub, EventTypes: []string{endpoints.SensorChange}, Body: endpoints.BodyData},
	{Name: "device-telemetry", Type: endpoints.TypeEventHub, EventTypes: []string{endpoints.DeviceMessage}},
	{Name: "twin-changes", Type: endpoints.TypeServiceBus, EventTypes: []string{endpoints.SpaceChange, endpoints.TopologyOperation}},
	{Name: "twin-alerts", Type: endpoints.TypeEventGrid, EventTypes: []string{endpoints.SpaceChange, endpoints.UdfCustom}},
}

// parts is the environment of the pipeline: the broker, the services, and a
// configuration with their addresses.
type parts struct {
	dir      string
	kafka    *emulator.Kafka
	services *emulator.Emulator
	config   config.Config
	store    endpoints.Store
	token    string
}

func startParts(ctx context.Context, o Options, story *story, log *zap.Logger) (_ *parts, err error) {
	p := &parts{token: rand.Text()[:10]} // 50 bits, for a port on loopback
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.dir, err = os.MkdirTemp("", "twinegress-demo-"); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	p.config = config.Default()
	keep, behind := int64(retention), story != nil && story.catchUp
	if behind {
		keep = behindRetention
	}
	if p.kafka, err = emulator.StartKafka(emulator.KafkaConfig{
		Topics:  map[string]int{p.config.Ingest.Topics[0]: partitions},
		DataDir: filepath.Join(p.dir, "kafka"), RetentionBytes: keep,
	}); err != nil {
		return nil, err
	}
	services := emulator.Config{StatsListen: "127.0.0.1:0", Record: 100, TrackIDs: o.tracked(), Logger: log}
	for _, e := range demoSet {
		switch e.Type {
		case endpoints.TypeEventHub:
			services.Hubs = append(services.Hubs, emulator.Hub{Name: e.Name, Partitions: 4})
		case endpoints.TypeServiceBus:
			services.Topics = append(services.Topics, emulator.Topic{Name: e.Name})
		case endpoints.TypeEventGrid:
			services.EventGridTopics = append(services.EventGridTopics, emulator.GridTopic{Name: e.Name})
		}
	}
	if p.services, err = emulator.Start(ctx, services); err != nil {
		return nil, err
	}
	if story != nil {
		story.injector = p.services
		story.configure(&p.config, o.Rate)
	}
	catchesUp := ""
	if behind {
		catchesUp = story.endpoint
	}
	if err := p.configure(catchesUp); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return p, nil
}

// configure sets the configuration and the endpoints, of which the one of this name
// catches up. Only the addresses, and the permission to speak AMQP in the clear, are
// special to emulated services.
func (p *parts) configure(catchesUp string) error {
	caFile := filepath.Join(p.dir, "ca.pem")
	if err := os.WriteFile(caFile, p.services.CAPEM(), 0o600); err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(p.token))
	c := &p.config
	c.Ingest.Brokers = p.kafka.Addrs()
	c.Endpoints.Store = config.StoreMemory
	c.Endpoints.AllowDevelopmentEmulator = true
	c.API.Listen, c.Ops.Listen = "127.0.0.1:0", "127.0.0.1:0"
	c.API.Tokens = []config.Token{{Name: "demo", SHA256: hex.EncodeToString(sum[:]), Role: config.RoleWrite}}
	c.Send.CAFile = caFile
	c.Shutdown.Timeout = 10 * time.Second
	if err := c.Validate(); err != nil {
		return err
	}

	set := endpoints.Clone(demoSet)
	for i := range set {
		e := &set[i]
		if e.Name == catchesUp {
			e.Recovery = endpoints.RecoveryCatchUp
		}
		if e.Type == endpoints.TypeEventGrid {
			e.Path = p.services.EventGridHost(e.Name)
			e.ConnectionString = p.services.EventGridKey(e.Name, emulator.Primary)
			e.SecondaryConnectionString = p.services.EventGridKey(e.Name, emulator.Secondary)
			continue
		}
		e.Path = e.Name
		e.ConnectionString = p.services.EntityConnectionString(e.Name, emulator.Primary)
		e.SecondaryConnectionString = p.services.EntityConnectionString(e.Name, emulator.Secondary)
	}
	store, err := endpoints.NewMemoryStore(set, endpoints.Options{AllowDevelopmentEmulator: true})
	p.store = store
	return err
}

// hint is a command to try while the demo runs.
type hint struct{ what, command string }

func (p *parts) hints(a *app.App) []hint {
	return []hint{
		{"status", "curl -s -H 'Authorization: Bearer " + p.token + "' \\\n  http://" + a.APIAddress() + api.Base + "/status"},
		{"metrics", "curl -s http://" + a.OpsAddress() + "/metrics"},
		{"arrived", "curl -s 'http://" + p.services.StatsAddr() + "/messages?entity=twin-events&limit=1'"},
	}
}

// deadLetters returns how many dead letters were ever stored.
func (p *parts) deadLetters() (n int64) {
	for _, partition := range p.kafka.Cluster.PartitionInfos(p.config.DeadLetter.Topic) {
		n += partition.HighWatermark
	}
	return n
}

func (p *parts) close() error {
	var err error
	if p.services != nil {
		err = p.services.Close()
	}
	if p.kafka != nil {
		p.kafka.Close()
	}
	if p.dir != "" {
		err = errors.Join(err, os.RemoveAll(p.dir))
	}
	return err
}
