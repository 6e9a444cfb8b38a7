package main

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/Azure/go-amqp"

	"twinegress/bench/feed"
	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/sinks/azamqp"
	"twinegress/stages"
)

// The sizes in the figures are those of the generated building.
func TestFigures(t *testing.T) {
	const n = 2000
	f := feed.New(1)
	var values, keys, withoutTopic, wire int
	c := event.NewChunk("digitaltwins-events", 3, n, n<<10, func(*event.Chunk) {})
	for i := 0; i < n; {
		r := f.Next(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
		if len(r.Headers) > 0 {
			continue // a device's own message
		}
		c.Add(int64(1_000_000+i), 0, 0, r.Key, r.Value)
		values, keys = values+len(r.Value), keys+len(r.Key)
		var members map[string]json.RawMessage
		if err := json.Unmarshal(r.Value, &members); err != nil {
			t.Fatal(err)
		}
		withoutTopic += len(r.Value) + 1 // the comma between two
		if topic, ok := members["topic"]; ok {
			withoutTopic -= len(`"topic":,`) + len(topic)
		}
		i++
	}
	stages.Decode(c, true, stages.Limits{})
	events := make([]*event.Event, len(c.Events))
	for i := range c.Events {
		events[i] = &c.Events[i]
	}
	const section = 8 // bytes of the section of each message of a batch
	if _, err := new(azamqp.Connections).Fill(events, endpoints.BodyEnvelope, nil, func(m *azamqp.Message) error {
		b, err := (&amqp.Message{
			Properties: &amqp.MessageProperties{MessageID: m.ID, ContentType: &m.ContentType}, ApplicationProperties: m.Properties, Data: [][]byte{m.Body},
		}).MarshalBinary()
		wire += len(b) + section
		return err
	}); err != nil {
		t.Fatal(err)
	}
	const framing = 12 // Kafka's lengths and deltas, and a share of the batch's header
	for what, tt := range map[string]struct {
		got int
		of  *figure
	}{
		"an event": {values, eventBytes}, "its key": {keys + n*framing, recordBytes}, "an AMQP message": {wire, amqpBytes}, "in Event Grid's array": {withoutTopic, gridBytes},
	} {
		if got := float64(tt.got) / n; math.Abs(got/tt.of.value-1) > 0.02 {
			t.Errorf("%s has %.0f B, the figure says %.0f", what, got, tt.of.value)
		}
	}
}

// BenchmarkEncrypt measures tlsCPU.
func BenchmarkEncrypt(b *testing.B) {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	record, nonce := make([]byte, 16<<10), make([]byte, 12)
	out := make([]byte, 0, 17<<10)
	b.SetBytes(int64(len(record)))
	for b.Loop() {
		out = aead.Seal(out[:0], nonce, record, nil)
	}
}

// The page has the program's tables, the same each time, and the numbers in its
// text are those of the tables.
func TestPage(t *testing.T) {
	const file = "../../docs/scaling.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := fill(string(page), tables())
	if err != nil {
		t.Fatal(err)
	}
	if string(page) != want {
		t.Error("docs/scaling.md has other tables: go run ./bench/capacity -write, and look at what changed")
	}
	p, n := planFor(eventHubs, 10_000_000), needsFor(10_000_000)
	for _, text := range []string{
		fmt.Sprintf("%.0f cores in %d copies of two; %d partitions; %.0f Gbit/s out, %.0f Gbit/s a copy; %d brokers",
			p.cores, p.copies, p.partitions, p.out*float64(p.copies)/1e9, p.out/1e9, p.brokers),
		fmt.Sprintf("%s processing units: %d Premium namespaces, so %d endpoints with a filter each, or %d Standard namespaces",
			number(float64(n.pus)), n.premium, n.premium, n.standard),
	} {
		if !strings.Contains(string(page), text) {
			t.Errorf("the text doesn't say: %s", text)
		}
	}
}

// Lanes are assigned as stages/ingest's TestLanes has it.
func TestAssign(t *testing.T) {
	for _, tt := range []struct {
		partitions []int
		want       string
	}{
		{upTo(16), "[0 1 2 3 4 5 6 7 0 1 2 3 4 5 6 7]"},
		{[]int{3, 11, 19, 27, 35, 43, 51, 59}, "[3 4 5 6 7 0 1 2]"},
		{[]int{0, 2, 4, 6, 8, 10, 12, 14}, "[0 2 4 6 1 3 5 7]"},
	} {
		given := assign(tt.partitions)
		var got []int
		for _, p := range tt.partitions {
			got = append(got, given[p])
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%v: lanes %v, want %s", tt.partitions, got, tt.want)
		}
	}
}

// The simulation has the results that can be calculated.
func TestSimulationAgreesWithArithmetic(t *testing.T) {
	full := float64(eventHubs.batch())
	for name, tt := range map[string]struct {
		scenario
		want, within float64
	}{
		"what comes is delivered": {
			scenario{kind: eventHubs, cores: 2, rate: 100_000, partitions: spread(1, 8), latency: 20 * time.Millisecond}, 100_000, 0.01,
		},
		"the cores": {
			scenario{kind: serviceBus, cores: 1, partitions: spread(1, 8), latency: time.Millisecond}, 1 / serviceBus.cpu().Seconds(), 0.03,
		},
		"one lane": { // a batch, then its latency and its encoding, and so on
			scenario{kind: eventHubs, cores: 8, partitions: [][]int{{0}}, latency: 50 * time.Millisecond},
			full / (0.05 + full*eventHubs.eventCPU().Seconds() + sendCPU.value/1e6), 0.05,
		},
		"copies add up": {
			scenario{kind: eventHubs, copies: 4, cores: 1, partitions: spread(4, 8), latency: time.Millisecond}, 4 / eventHubs.cpu().Seconds(), 0.03,
		},
		"a lane of two partitions of the hub": { // full batches all the same
			scenario{kind: eventHubs, cores: 8, partitions: spread(1, 16), hub: 32, latency: 50 * time.Millisecond},
			8 * full / (0.05 + full*eventHubs.eventCPU().Seconds() + sendCPU.value/1e6), 0.1,
		},
		"under the service's limit": {
			scenario{kind: eventHubs, cores: 2, rate: 30_000, limit: 40_000, budget: 1, partitions: spread(1, 8), latency: 20 * time.Millisecond}, 30_000, 0.01,
		},
	} {
		tt.warmUp, tt.duration, tt.copies = time.Second, 5*time.Second, max(1, tt.copies)
		o := simulate(tt.scenario)
		if math.Abs(o.rate/tt.want-1) > tt.within {
			t.Errorf("%s: %.0f events a second, want %.0f", name, o.rate, tt.want)
		}
		if o.busy > 1.01 || o.inFlight > float64(8*tt.copies) || o.p99 < o.p50 {
			t.Errorf("%s: impossible: %+v", name, o)
		}
	}
	over := simulate(scenario{
		kind: eventHubs, copies: 1, cores: 2, rate: 60_000, limit: 40_000, budget: 1, partitions: spread(1, 8), latency: 20 * time.Millisecond,
		fetch: 10 * time.Millisecond, warmUp: 10 * time.Second, duration: 60 * time.Second,
	})
	if over.rate > 40_000*(1+1.0/50) || over.throttled == 0 || over.heldBack == 0 {
		t.Errorf("over the limit: %+v", over)
	}
}

// The simulation is within 30 % of measurements of the program in the same
// situations, unless the machine was the limit.
func TestSimulationAgreesWithTheProgram(t *testing.T) {
	for _, m := range measuredRuns {
		if m.ms == 20 && m.ratio == zstd.value {
			continue // broker, service and other work used the cores
		}
		if got := backlog(eventHubs, 2, upTo(8), m.ms, fetched(m.ratio)).rate; math.Abs(got/m.actual-1) > 0.3 {
			t.Errorf("%s, %.0f ms: %.0f events a second, measured %.0f", m.name, m.ms, got, m.actual)
		}
	}
}
