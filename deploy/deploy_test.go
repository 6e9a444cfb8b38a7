// Package deploy_test reads the files of deploy/ as those who use them will,
// and holds them against each other: no Docker engine is needed to find that an
// endpoint sends to a hub that the emulator was never told to have.
package deploy_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/config"
)

const compose = "compose"

// hubsConfig is the Event Hubs emulator's configuration, as far as it is used here.
type hubsConfig struct {
	UserConfig struct {
		NamespaceConfig []struct {
			Type, Name string
			Entities   []struct {
				Name           string
				PartitionCount string // the emulator wants a string
				ConsumerGroups []struct{ Name string }
			}
		}
		LoggingConfig struct{ Type string }
	}
}

// busConfig is the Service Bus emulator's.
type busConfig struct {
	UserConfig struct {
		Namespaces []struct {
			Name   string
			Queues []struct{ Name string }
			Topics []struct {
				Name          string
				Properties    map[string]any
				Subscriptions []struct {
					Name       string
					Properties map[string]any
					Rules      []any
				}
			}
		}
		Logging struct{ Type string }
	}
}

func TestConfigIsValid(t *testing.T) {
	cfg, err := config.Load(config.Sources{
		File:    filepath.Join(compose, "twinegress", "twinegress.yaml"),
		Environ: []string{}, // and not this process's
	})
	if err != nil {
		t.Fatal(err)
	}
	if !cfg.API.Enabled() {
		t.Error("the Management API is off: its port is published")
	}
	if !cfg.Endpoints.AllowDevelopmentEmulator {
		t.Error("endpoints.allowDevelopmentEmulator is off: the emulators have no TLS")
	}
}

// What an endpoint sends to has to be there, under its name, to be read.
func TestEndpointsHaveTheirEntities(t *testing.T) {
	var hubs hubsConfig
	readJSON(t, &hubs, compose, "eventhubs", "Config.json")
	var bus busConfig
	readJSON(t, &bus, compose, "servicebus", "Config.json")
	grid := service(t, "eventgrid")

	entities := map[endpoints.Type][]string{}
	for _, ns := range hubs.UserConfig.NamespaceConfig {
		for _, e := range ns.Entities {
			entities[endpoints.TypeEventHub] = append(entities[endpoints.TypeEventHub], e.Name)
		}
	}
	for _, ns := range bus.UserConfig.Namespaces {
		for _, topic := range ns.Topics {
			entities[endpoints.TypeServiceBus] = append(entities[endpoints.TypeServiceBus], topic.Name)
			if len(topic.Subscriptions) == 0 {
				t.Errorf("topic %s has no subscription: what is sent to it is gone", topic.Name)
			}
		}
	}
	entities[endpoints.TypeEventGrid] = []string{"eventgrid:8443"}

	subscribed := map[string]bool{}
	eps, err := endpoints.DecodeSet([]byte(read(t, compose, "twinegress", "endpoints.json")), nil,
		endpoints.Options{AllowDevelopmentEmulator: true})
	if err != nil || len(eps) == 0 {
		t.Fatalf("%d endpoints, %v", len(eps), err)
	}
	for _, e := range eps {
		if !slices.Contains(entities[e.Type], e.Path) {
			t.Errorf("endpoint %s sends to %s %q; there are only %q", e.Name, e.Type, e.Path, entities[e.Type])
		}
		if e.Type == endpoints.TypeEventGrid && !strings.Contains(grid, "--eventgrid-key="+e.ConnectionString+" ") {
			t.Errorf("endpoint %s: its key is not the one that the stand-in is started with", e.Name)
		}
		for _, typ := range e.EventTypes {
			subscribed[typ] = true
		}
	}
	for _, typ := range endpoints.EventTypes() {
		if !subscribed[typ] {
			t.Errorf("no endpoint takes %s", typ)
		}
	}
}

// Every type of event is in the feed, each event whole and keyed by its twin.
func TestFeed(t *testing.T) {
	types := map[string]bool{}
	for i, line := range strings.Split(strings.TrimSuffix(read(t, compose, "feed", "events.tsv"), "\n"), "\n") {
		key, value, ok := strings.Cut(line, "\t")
		if !ok || key == "" {
			t.Fatalf("line %d: no key and tab before the event", i+1)
		}
		var e struct {
			ID, Subject, EventType, EventTime, DataVersion, MetadataVersion, Topic string

			Data json.RawMessage
		}
		if err := strict([]byte(value), &e); err != nil {
			t.Fatalf("line %d: %v", i+1, err)
		}
		if e.ID != "@ID@" || e.EventTime != "@NOW@" {
			t.Errorf("line %d: id and eventTime are feed.sh's to fill in", i+1)
		}
		types[e.EventType] = true
	}
	for _, typ := range endpoints.EventTypes() {
		if !types[typ] {
			t.Errorf("no %s in the feed", typ)
		}
	}
}

// service returns a service's lines in docker-compose.yml, list items one after
// the other with a space between. What is valid in there is composecheck's to say.
func service(t *testing.T, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, "..", "docker-compose.yml"), "\n  "+name+":\n")
	if !ok {
		t.Fatalf("docker-compose.yml has no service %s", name)
	}
	var words []string
	for _, line := range strings.Split(rest, "\n") {
		if strings.HasPrefix(line, "  ") && !strings.HasPrefix(line, "   ") {
			break
		}
		words = append(words, strings.Fields(line)...)
	}
	return strings.Join(words, " ") + " "
}

func readJSON(t *testing.T, into any, path ...string) {
	t.Helper()
	if err := strict([]byte(read(t, path...)), into); err != nil {
		t.Fatalf("%s: %v", filepath.Join(path...), err)
	}
}

// strict refuses what the target has no field for: a misspelt key.
func strict(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
