package emulator

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"
)

// Defaults of Config.
const (
	DefaultPartitions      = 4
	DefaultMaxMessageBytes = 1 << 20
	DefaultPolicy          = "RootManageSharedAccessKey"
	defaultListen          = "127.0.0.1:0"
)

// Config configures the emulated services, with a field per setting. Its zero value
// is a namespace without entities on an ephemeral loopback port.
type Config struct {
	// AMQPListen is the namespace's address; "" is an ephemeral loopback port.
	AMQPListen string
	// AMQPTLS serves AMQP over TLS with a certificate of the emulator's CA, and
	// omits UseDevelopmentEmulator from the connection strings.
	AMQPTLS bool
	// StatsListen is the address of the HTTP server for counts and faults; "" is no such server.
	StatsListen string

	Hubs            []Hub
	Topics          []Topic
	EventGridTopics []GridTopic
	// AutoCreate creates an undeclared entity on the first attach: a hub for an
	// Event Hubs client, a topic for a Service Bus one.
	AutoCreate bool
	// Partitions of a hub without its own number; 0 is DefaultPartitions.
	Partitions int

	// Keys are the namespace's; empty fields are filled in, keys at random.
	Keys KeyPair
	// BearerToken, if set, is the one token accepted for identity-based
	// authentication, in place of one that Entra ID issues.
	BearerToken string

	// MaxMessageBytes of an entity without its own limit, for a batch too; 0 is 1 MiB.
	MaxMessageBytes int
	// MaxFrameBytes is the AMQP max-frame-size; 0 is 64 KiB, as in Azure.
	MaxFrameBytes int

	// Record is the number of messages each entity keeps for Messages: the last ones. 0 keeps none.
	Record int
	// TrackIDs counts distinct message ids. An id that ends in a slash and a number
	// takes one bit if its neighbours are stored too; any other takes about 20 bytes
	// and is compared by a 64-bit hash: among ten million, the chance that one is
	// miscounted is 3 in a million.
	TrackIDs bool
	// Arrived, if set, is called for each message as it is stored, in the order of
	// its entity, with its message id or, at an Event Grid topic, whose messages have
	// none, with the event. what is valid during the call only; the entity is locked.
	Arrived func(entity string, partition int, what []byte)

	// CertHosts are further names or addresses in the certificate of TLS listeners.
	CertHosts []string

	Logger *zap.Logger
}

// Hub is an event hub.
type Hub struct {
	Name            string
	Partitions      int      // 0 is Config.Partitions
	MaxMessageBytes int      // 0 is Config.MaxMessageBytes
	Keys            *KeyPair // replace the namespace's, which are then refused
}

// Topic is a Service Bus topic.
type Topic struct {
	Name            string
	MaxMessageBytes int
	// MaxBatchBytes is the limit of a batch, where it is lower than that of one
	// message, as in Premium; 0 is the same. UntoldBatchLimit keeps it from the
	// link's properties.
	MaxBatchBytes    int
	UntoldBatchLimit bool
	Keys             *KeyPair
}

// GridTopic is an Event Grid topic. It has a listener of its own.
type GridTopic struct {
	Name   string
	Listen string   // "" is an ephemeral loopback port
	Keys   *KeyPair // the policy name is not used
}

// KeyPair is a shared access policy, or the two keys of an Event Grid topic.
type KeyPair struct {
	Policy    string
	Primary   string
	Secondary string
}

// Key selects one key of a pair.
type Key int

// The two keys of a pair.
const (
	Primary Key = iota
	Secondary
)

func (k Key) String() string {
	if k == Secondary {
		return "secondary"
	}
	return "primary"
}

// Of returns the key that k selects.
func (p KeyPair) Of(k Key) string {
	if k == Secondary {
		return p.Secondary
	}
	return p.Primary
}

func (p *KeyPair) fill() {
	if p.Policy == "" {
		p.Policy = DefaultPolicy
	}
	if p.Primary == "" {
		p.Primary = randomKey()
	}
	if p.Secondary == "" {
		p.Secondary = randomKey()
	}
}

func randomKey() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand panics instead
	return base64.StdEncoding.EncodeToString(b)
}

// finalize sets the defaults and returns all errors.
func (c *Config) finalize() error {
	if c.AMQPListen == "" {
		c.AMQPListen = defaultListen
	}
	if c.Partitions == 0 {
		c.Partitions = DefaultPartitions
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = DefaultMaxMessageBytes
	}
	if c.MaxFrameBytes == 0 {
		c.MaxFrameBytes = 64 << 10
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.Keys.fill()

	var errs []error
	seen := map[string]bool{}
	name := func(kind, n string) {
		switch {
		case n == "", n == Namespace, strings.HasPrefix(n, "$"), strings.Contains(n, "/$"):
			errs = append(errs, fmt.Errorf("emulator: %s has the unusable name %q", kind, n))
		case seen[strings.ToLower(n)]:
			errs = append(errs, fmt.Errorf("emulator: entity %q is declared twice", n))
		}
		seen[strings.ToLower(n)] = true
	}
	for _, h := range c.Hubs {
		name("a hub", h.Name)
		if h.Partitions < 0 {
			errs = append(errs, fmt.Errorf("emulator: hub %q has %d partitions", h.Name, h.Partitions))
		}
	}
	for _, t := range c.Topics {
		name("a topic", t.Name)
	}
	for _, t := range c.EventGridTopics {
		name("an Event Grid topic", t.Name)
	}
	if c.Partitions < 0 || c.MaxMessageBytes < 0 || c.Record < 0 || c.MaxFrameBytes < 512 {
		errs = append(errs, errors.New("emulator: Partitions, MaxMessageBytes and Record can't be negative, nor MaxFrameBytes under 512"))
	}
	return errors.Join(errs...)
}
