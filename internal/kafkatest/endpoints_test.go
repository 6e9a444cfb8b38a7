//go:build integration

package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"twinegress/endpoints"
	"twinegress/endpoints/kafkastore"
	"twinegress/endpoints/secrets"
)

// Two copies change the endpoints in a topic of three replicas while its
// brokers are killed and suspended one after the other: in the end both have
// every acknowledged change.
func TestEndpointsTopicOutlivesItsBrokers(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c, err := Start(ctx, Config{Nodes: 3, Dir: t.TempDir(), Properties: map[string]string{
		"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500",
		"min.insync.replicas": "2", "transaction.state.log.min.isr": "2",
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(file, []byte(key.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	keyring, _, err := secrets.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	var parts, writers sync.WaitGroup
	defer writers.Wait()
	defer parts.Wait()
	defer stop()
	logger := zaptest.NewLogger(t, zaptest.Level(zap.InfoLevel)) // shown where the test fails
	start := func() *kafkastore.Store {
		t.Helper()
		s := kafkastore.New(kafkastore.Options{Topic: "endpoints", Keyring: keyring, Connect: []kgo.Opt{kgo.SeedBrokers(c.Addrs()...)}, Logger: logger})
		if _, err := s.Load(ctx); err != nil {
			t.Fatal(err)
		}
		parts.Go(func() {
			if err := s.Watch(running, func([]endpoints.Endpoint) {}); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	copies := []*kafkastore.Store{start(), start()}

	var (
		mu      sync.Mutex
		known   = map[string]bool{} // acknowledged
		unknown = map[string]bool{}
		failed  int
		longest time.Duration
		enough  = make(chan struct{})
	)
	for w := range 6 {
		writers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-enough:
					return
				case <-running.Done():
					return
				default:
				}
				name := fmt.Sprintf("%d-%d", w, n)
				patient, cancel := context.WithTimeout(ctx, 5*time.Second)
				begun := time.Now()
				_, err := copies[w%2].Change(patient, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) {
					return append(set, endpoints.Endpoint{
						Name: name, Type: endpoints.TypeEventGrid, EventTypes: []string{endpoints.SpaceChange},
						ConnectionString: "key", Path: "topic.example.com",
					}), nil
				})
				cancel()
				mu.Lock()
				switch {
				case err == nil:
					known[name] = true
					longest = max(longest, time.Since(begun))
				case errors.Is(err, endpoints.ErrUnknown):
					unknown[name] = true
				case errors.Is(err, context.DeadlineExceeded):
					failed++
				case running.Err() == nil:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	progress := func(what string) {
		t.Helper()
		mu.Lock()
		before := len(known)
		mu.Unlock()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			mu.Lock()
			now := len(known)
			mu.Unlock()
			if now >= before+5 {
				logger.Info("changes succeed " + what)
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no change succeeds %s", what)
			}
		}
	}
	progress("with all nodes")
	for _, id := range c.Nodes() {
		if err := c.Kill(id); err != nil {
			t.Fatal(err)
		}
		progress(fmt.Sprintf("without node %d", id))
		if err := c.Restart(ctx, id); err != nil {
			t.Fatal(err)
		}
		progress(fmt.Sprintf("with node %d again", id))
		if err := c.Suspend(id); err != nil {
			t.Fatal(err)
		}
		progress(fmt.Sprintf("with node %d frozen", id))
		if err := c.Resume(id); err != nil {
			t.Fatal(err)
		}
		progress(fmt.Sprintf("with node %d thawed", id))
	}
	close(enough)
	writers.Wait()

	set, err := copies[0].Change(ctx, func(set []endpoints.Endpoint) ([]endpoints.Endpoint, error) { return set[:len(set)-1], nil })
	if err != nil {
		t.Fatal(err)
	}
	names := func(set []endpoints.Endpoint) string {
		var all []string
		for _, e := range set {
			all = append(all, e.Name)
		}
		return strings.Join(all, " ")
	}
	for deadline := time.Now().Add(10 * time.Second); names(copies[1].Current()) != names(set); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the copies differ")
		}
	}
	if again := start(); names(again.Current()) != names(set) {
		t.Error("a copy that starts now has another set")
	}
	missing, took := maps.Clone(known), 0
	for _, e := range set {
		if unknown[e.Name] {
			took++
		} else if !known[e.Name] {
			t.Errorf("%s is there, and its change is said to have failed", e.Name)
		}
		delete(missing, e.Name)
	}
	if len(missing) > 1 { // the last one was taken out
		t.Errorf("acknowledged, and not there: %v", slices.Sorted(maps.Keys(missing)))
	}
	t.Logf("%d changes acknowledged, the slowest after %s; %d failed; of %d nothing was known, and %d of them are there",
		len(known), longest.Round(time.Millisecond), failed, len(unknown), took)
}
