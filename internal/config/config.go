// Package config defines twinegress' configuration: its keys, their defaults,
// the sources of values and their validation.
//
// Later sources win over earlier ones:
//
//	Default() < the YAML file < TWINEGRESS_… environment < --set key=value
//
// [Load] reads them all and returns all errors at once, as [Errors]: unknown
// keys, values that can't be parsed and values that aren't allowed, each with
// the key's name and its source. [Example] is a file with every key, its default
// and its meaning.
package config

import "time"

// Config is the whole configuration. The koanf tags are the keys.
type Config struct {
	Ingest     Ingest     `koanf:"ingest"`
	Endpoints  Endpoints  `koanf:"endpoints"`
	API        API        `koanf:"api"`
	Ops        Ops        `koanf:"ops"`
	Batch      Batch      `koanf:"batch"`
	Backoff    Backoff    `koanf:"backoff"`
	Send       Send       `koanf:"send"`
	DeadLetter DeadLetter `koanf:"deadLetter"`
	Status     Status     `koanf:"status"`
	Positions  Positions  `koanf:"positions"`
	Shutdown   Shutdown   `koanf:"shutdown"`
}

// Ingest configures the source of the events.
type Ingest struct {
	Brokers          []string      `koanf:"brokers"`          // host:port each
	Topics           []string      `koanf:"topics"`           //
	Group            string        `koanf:"group"`            // the consumer group
	Start            string        `koanf:"start"`            // StartEarliest or StartLatest
	Protocol         string        `koanf:"protocol"`         // ProtocolClassic or ProtocolConsumer
	InstanceID       string        `koanf:"instanceId"`       // static membership, if not empty
	SessionTimeout   time.Duration `koanf:"sessionTimeout"`   //
	RebalanceTimeout time.Duration `koanf:"rebalanceTimeout"` //
	TLS              TLS           `koanf:"tls"`
	SASL             SASL          `koanf:"sasl"`
	MaxInFlightBytes ByteSize      `koanf:"maxInFlightBytes"` // polling pauses above it
	WaitForEndpoints bool          `koanf:"waitForEndpoints"` // nothing is read while there is none
	Limits           Limits        `koanf:"limits"`
}

// Limits are what one batch and one record of the ingest topics may have. What
// exceeds one is a dead letter.
type Limits struct {
	BatchBytes  ByteSize `koanf:"batchBytes"` // in memory: unpacked, with what its records and headers take
	Elements    int      `koanf:"elements"`   // of a record that is an array
	Headers     int      `koanf:"headers"`    // of a record
	HeaderBytes ByteSize `koanf:"headerBytes"`
}

// The values of ingest.start.
const (
	StartEarliest = "earliest"
	StartLatest   = "latest"
)

// The values of ingest.protocol.
const (
	ProtocolClassic  = "classic"  // cooperative-sticky, by the group's members
	ProtocolConsumer = "consumer" // KIP-848, by the brokers
)

// TLS configures the connection to the brokers.
type TLS struct {
	Enabled  bool   `koanf:"enabled"`
	CAFile   string `koanf:"caFile"`   // PEM; empty: the system's
	CertFile string `koanf:"certFile"` // PEM; with KeyFile, for mTLS
	KeyFile  string `koanf:"keyFile"`
}

// SASL configures the login to the brokers.
type SASL struct {
	Mechanism    string `koanf:"mechanism"` // empty: none; else one of the SASL… constants
	Username     string `koanf:"username"`
	Password     Secret `koanf:"password"`     // for OAUTHBEARER: the token
	PasswordFile string `koanf:"passwordFile"` // instead of Password; read at each login
}

// The values of ingest.sasl.mechanism.
const (
	SASLPlain       = "PLAIN"
	SASLScram256    = "SCRAM-SHA-256"
	SASLScram512    = "SCRAM-SHA-512"
	SASLOAuthBearer = "OAUTHBEARER"
)

// Endpoints configures the store of the endpoints.
type Endpoints struct {
	Store                    string `koanf:"store"` // StoreFile, StoreKafka or StoreMemory
	File                     string `koanf:"file"`
	Topic                    string `koanf:"topic"`          // of StoreKafka, at the brokers of ingest
	SecretsKeyFile           string `koanf:"secretsKeyFile"` // age identities; empty: secrets are stored in the clear
	AllowDevelopmentEmulator bool   `koanf:"allowDevelopmentEmulator"`
	// IdentityDomains are the domains that identityBased endpoints may be in.
	IdentityDomains []string `koanf:"identityDomains"`
	Hosts           Hosts    `koanf:"hosts"`
}

// Hosts configures where endpoints may be: names, *.domain for all that is below
// it, addresses and networks.
type Hosts struct {
	Allow []string `koanf:"allow"` // empty: anywhere but in some networks that no service is in
	Deny  []string `koanf:"deny"`  // wins over Allow
}

// The values of endpoints.store.
const (
	StoreFile   = "file"
	StoreKafka  = "kafka"
	StoreMemory = "memory"
)

// API configures the Management API.
type API struct {
	Listen     string    `koanf:"listen"`     // host:port; empty: off
	Tokens     []Token   `koanf:"tokens"`     // Load adds those of TokensFile
	TokensFile string    `koanf:"tokensFile"` // further tokens, YAML or JSON
	OIDC       OIDC      `koanf:"oidc"`
	TLS        ServerTLS `koanf:"tls"`
	RateLimit  int       `koanf:"rateLimit"` // requests a second, for each caller
}

// Enabled reports whether the API is served: never without credentials that may
// call it.
func (a API) Enabled() bool { return a.Listen != "" && a.authenticates() }

func (a API) authenticates() bool { return len(a.Tokens) > 0 || a.OIDC.Issuer != "" }

// OIDC configures the issuer whose JWTs are accepted, and which claim maps to
// which role.
type OIDC struct {
	Issuer     string `koanf:"issuer"` // its URL; empty: off
	Audience   string `koanf:"audience"`
	RoleClaim  string `koanf:"roleClaim"`
	ReadRole   string `koanf:"readRole"`
	WriteRole  string `koanf:"writeRole"`
	EventsRole string `koanf:"eventsRole"` // beside one of the other two
}

// ServerTLS configures the certificate of a listener: PEM files, or both empty.
type ServerTLS struct {
	CertFile string `koanf:"certFile"`
	KeyFile  string `koanf:"keyFile"`
}

// Enabled reports whether the listener uses TLS.
func (t ServerTLS) Enabled() bool { return t.CertFile != "" }

// Token is a bearer token of the API.
type Token struct {
	Name   string `koanf:"name"`
	SHA256 string `koanf:"sha256"` // of the token's own characters, 64 hex digits, lower case
	Role   string `koanf:"role"`   // RoleRead or RoleWrite
	Events bool   `koanf:"events"` // may see what is in events, too
}

// The values of api.tokens[].role.
const (
	RoleRead  = "read"
	RoleWrite = "write"
)

// Ops configures the listener for metrics and health.
type Ops struct {
	Listen string `koanf:"listen"` // host:port; empty: off
}

// Batch configures when a batch is sent.
type Batch struct {
	Linger    time.Duration `koanf:"linger"`
	MaxEvents int           `koanf:"maxEvents"`
}

// Backoff configures how long an endpoint backs off.
type Backoff struct {
	Initial time.Duration `koanf:"initial"`
	Max     time.Duration `koanf:"max"` // at most MaxBackoff
}

// MaxBackoff is the longest back-off allowed: it is documented as a guarantee.
const MaxBackoff = 30 * time.Minute

// Send configures how a batch is sent.
type Send struct {
	Timeout       time.Duration `koanf:"timeout"`
	Attempts      int           `koanf:"attempts"` // of one batch with one key
	ThrottleLimit time.Duration `koanf:"throttleLimit"`
	CAFile        string        `koanf:"caFile"` // further root certificates, PEM
}

// DeadLetter configures the topic for bad input and for rejected events.
type DeadLetter struct {
	Topic   string `koanf:"topic"`
	Backoff bool   `koanf:"backoff"` // also the events that an endpoint drops while it backs off
}

// Status configures what copies tell each other.
type Status struct {
	Topic string `koanf:"topic"` // empty: each copy knows itself only
}

// Positions configures where it is kept who is behind, and from where.
type Positions struct {
	Topic  string `koanf:"topic"`  // for what a commit has no room for; empty: that is lost with a copy
	Groups bool   `koanf:"groups"` // shows who is behind to Kafka's tools
}

// Shutdown configures the shutdown.
type Shutdown struct {
	Timeout time.Duration `koanf:"timeout"`
}

// Default returns the configuration without any source.
func Default() Config {
	return Config{
		Ingest: Ingest{
			Brokers:          []string{"127.0.0.1:9092"},
			Topics:           []string{"digitaltwins-events"},
			Group:            "twinegress",
			Start:            StartEarliest,
			Protocol:         ProtocolClassic,
			SessionTimeout:   45 * time.Second,
			RebalanceTimeout: 60 * time.Second,
			MaxInFlightBytes: 64 << 20,
			WaitForEndpoints: true,
			Limits:           Limits{BatchBytes: 16 << 20, Elements: 100_000, Headers: 1000, HeaderBytes: 256 << 10},
		},
		Endpoints: Endpoints{
			Store: StoreFile, File: "endpoints.json", Topic: "twinegress-endpoints",
			IdentityDomains: []string{
				"servicebus.windows.net", "eventgrid.azure.net",
				"servicebus.usgovcloudapi.net", "eventgrid.azure.us",
				"servicebus.chinacloudapi.cn", "eventgrid.azure.cn",
			},
			Hosts: Hosts{Allow: []string{}, Deny: []string{}},
		},
		API: API{
			Listen: "127.0.0.1:8080", Tokens: []Token{}, RateLimit: 100,
			OIDC: OIDC{RoleClaim: "roles", ReadRole: "twinegress.read", WriteRole: "twinegress.write", EventsRole: "twinegress.events"},
		},
		Ops:        Ops{Listen: "127.0.0.1:8081"},
		Batch:      Batch{Linger: 5 * time.Millisecond, MaxEvents: 2000},
		Backoff:    Backoff{Initial: time.Second, Max: MaxBackoff},
		Send:       Send{Timeout: 10 * time.Second, Attempts: 3, ThrottleLimit: 2 * time.Minute},
		DeadLetter: DeadLetter{Topic: "twinegress-deadletter"},
		Status:     Status{Topic: "twinegress-status"},
		Positions:  Positions{Topic: "twinegress-positions", Groups: true},
		Shutdown:   Shutdown{Timeout: 30 * time.Second},
	}
}
