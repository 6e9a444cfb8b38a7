package config

import (
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	sasl := func(mechanism, username string, password Secret) func(*Config) {
		return func(c *Config) { c.Ingest.SASL = SASL{Mechanism: mechanism, Username: username, Password: password} }
	}
	token := func(name, sha, role string) Token { return Token{Name: name, SHA256: sha, Role: role} }
	other := strings.Repeat("0", 64)

	for name, tc := range map[string]struct {
		change func(*Config)
		want   []string
	}{
		"defaults": {func(*Config) {}, nil},
		"limits": {func(c *Config) {
			c.Batch.Linger, c.Batch.MaxEvents, c.Ingest.MaxInFlightBytes = 0, 1, 1
			c.Ingest.SessionTimeout, c.Ingest.RebalanceTimeout = time.Second, time.Second
			c.Send = Send{Timeout: 333333333, Attempts: 3, ThrottleLimit: 1}
			c.Backoff = Backoff{Initial: MaxBackoff, Max: MaxBackoff}
			c.Ops.Listen, c.API.Listen = ":0", ""
		}, nil},
		"nothing": {func(c *Config) { *c = Config{} }, []string{
			"ingest.brokers: at least one", "ingest.topics: at least one", "ingest.group: must not be empty",
			"ingest.start: must be one of earliest, latest", "ingest.protocol: must be one of classic, consumer",
			"ingest.sessionTimeout: must be from 1s to 30m", "ingest.rebalanceTimeout: must be from 1s to 1h",
			"ingest.maxInFlightBytes: must be more than 0",
			"ingest.limits.batchBytes: from 2MiB to 1GiB", "ingest.limits.elements: at least 1",
			"ingest.limits.headers: at least 1", "ingest.limits.headerBytes: more than 0", "endpoints.store: must be one of file, kafka, memory",
			"batch.maxEvents: at least 1", "backoff.initial: more than 0", "backoff.max: more than 0",
			"api.rateLimit: from 1 to 1000000", "send.timeout: more than 0", "send.attempts: at least 1", "send.throttleLimit: more than 0",
			"deadLetter.topic: 1 to 249", "shutdown.timeout: more than 0",
		}},
		"brokers": {func(c *Config) {
			c.Ingest.Brokers = []string{"kafka", ":9092", "k:0", "k:70000", "a b:1", "[::1]:1", "k:9092"}
		}, []string{
			"ingest.brokers[0]: the port is missing", "ingest.brokers[1]: the host is missing",
			"ingest.brokers[2]: from 1 to 65535", "ingest.brokers[3]: from 1 to 65535", "ingest.brokers[4]: a name or an address",
		}},
		"hosts": {func(c *Config) {
			c.Endpoints.Hosts = Hosts{Allow: []string{"*.example", "10.0.0.0/8", "https://a.example"}, Deny: []string{"*", "::1"}}
		}, []string{`endpoints.hosts.allow[2]: must be a host's name, *.domain, an address`, `endpoints.hosts.deny[0]: not "*"`}},
		"topics": {func(c *Config) { c.Ingest.Topics = []string{"a", "a", "", "b c", "..", strings.Repeat("x", 250)} }, []string{
			`ingest.topics[1]: "a" is listed more than once`, "ingest.topics[2]: 1 to 249", "ingest.topics[3]: 1 to 249",
			"ingest.topics[4]: 1 to 249", "ingest.topics[5]: 1 to 249",
		}},
		"instance":         {func(c *Config) { c.Ingest.InstanceID = "a b" }, []string{"ingest.instanceId: letters"}},
		"session too long": {func(c *Config) { c.Ingest.SessionTimeout = 31 * time.Minute }, []string{"ingest.sessionTimeout: must be from"}},
		"tls files, no tls": {func(c *Config) { c.Ingest.TLS = TLS{CAFile: "a", CertFile: "b", KeyFile: "c"} }, []string{
			"ingest.tls.caFile: enabled is false", "ingest.tls.certFile: enabled is false", "ingest.tls.keyFile: enabled is false",
		}},
		"cert, no key": {func(c *Config) { c.Ingest.TLS = TLS{Enabled: true, CertFile: "b"} }, []string{"ingest.tls.keyFile: along with"}},
		"key, no cert": {func(c *Config) { c.Ingest.TLS = TLS{Enabled: true, KeyFile: "b"} }, []string{"ingest.tls.certFile: along with"}},

		"sasl plain":      {sasl("plain", "u", "SECRET"), nil},
		"sasl bearer":     {sasl(SASLOAuthBearer, "", "SECRET"), nil},
		"sasl incomplete": {sasl(SASLScram512, "", ""), []string{"ingest.sasl.username: required for SCRAM-SHA-512", "ingest.sasl.password: or passwordFile is required"}},
		"sasl password file": {func(c *Config) {
			c.Ingest.SASL = SASL{Mechanism: SASLPlain, Username: "u", PasswordFile: "p"}
		}, nil},
		"sasl password twice": {func(c *Config) {
			c.Ingest.SASL = SASL{Mechanism: SASLPlain, Username: "u", Password: "SECRET", PasswordFile: "p"}
		}, []string{"ingest.sasl.passwordFile: both set"}},
		"sasl file, no mechanism": {func(c *Config) { c.Ingest.SASL.PasswordFile = "p" }, []string{"ingest.sasl.passwordFile: mechanism is empty"}},
		"sasl no token":           {sasl(SASLOAuthBearer, "", ""), []string{"ingest.sasl.password: or passwordFile is required for OAUTHBEARER: the token"}},
		"sasl no mechanism":       {sasl("", "u", "SECRET"), []string{"ingest.sasl.username: mechanism is empty", "ingest.sasl.password: mechanism is empty"}},
		"sasl unknown":            {sasl("GSSAPI", "", ""), []string{"ingest.sasl.mechanism: must be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER"}},

		"store without file": {func(c *Config) { c.Endpoints.File = "" }, []string{"endpoints.file: must not be empty"}},
		"memory, no file":    {func(c *Config) { c.Endpoints = Endpoints{Store: StoreMemory} }, nil},
		"memory, with a key": {func(c *Config) { c.Endpoints = Endpoints{Store: StoreMemory, SecretsKeyFile: "k"} }, []string{
			"endpoints.secretsKeyFile: memory stores nothing",
		}},
		"kafka store": {func(c *Config) { c.Endpoints.Store, c.Endpoints.SecretsKeyFile = "Kafka", "k" }, nil},
		"kafka store, bare": {func(c *Config) { c.Endpoints = Endpoints{Store: StoreKafka} }, []string{
			"endpoints.topic: must be 1 to 249", "endpoints.secretsKeyFile: is required with endpoints.store: kafka",
		}},
		"kafka store among the events": {func(c *Config) {
			c.Endpoints = Endpoints{Store: StoreKafka, Topic: c.Ingest.Topics[0], SecretsKeyFile: "k"}
		}, []string{"endpoints.topic: must be a topic of its own"}},
		"kafka store among the dead letters": {func(c *Config) {
			c.Endpoints = Endpoints{Store: StoreKafka, Topic: c.DeadLetter.Topic, SecretsKeyFile: "k"}
		}, []string{"endpoints.topic: must be a topic of its own"}},

		"listen": {func(c *Config) { c.API.Listen, c.Ops.Listen = "8080", "host:http" }, []string{
			"api.listen: host:port, or empty for off", "ops.listen: must be a number",
		}},
		"tokens": {func(c *Config) {
			c.API.Tokens = []Token{
				token("a", hash, "read"), token("a", strings.ToUpper(hash), "WRITE"), token(" ", other[2:], ""), token("d", other[1:]+"g", "read"),
			}
		}, []string{
			`api.tokens[1].name: "a" is used more than once`, "api.tokens[1].sha256: another token", "api.tokens[2].name: must not be empty",
			"api.tokens[2].sha256: 64 hex", "api.tokens[2].role: must be one of read, write", "api.tokens[3].sha256: 64 hex",
		}},
		"oidc": {func(c *Config) {
			c.API.OIDC.Issuer, c.API.OIDC.Audience = "http://127.0.0.1:5556/dex", "twinegress"
			c.API.TLS = ServerTLS{CertFile: "c", KeyFile: "k"}
		}, nil},
		"oidc incomplete": {func(c *Config) {
			c.API.OIDC = OIDC{Issuer: "https://login.example.com", ReadRole: "a", WriteRole: "a", EventsRole: "a"}
		}, []string{
			"api.oidc.audience: must not be empty", "api.oidc.roleClaim: must not be empty", "api.oidc.readRole: same as api.oidc.writeRole",
			"api.oidc.eventsRole: must not be the same as api.oidc.readRole or writeRole",
		}},
		"oidc in the clear":     {func(c *Config) { c.API.OIDC.Issuer, c.API.OIDC.Audience = "http://idp/", "a" }, []string{"api.oidc.issuer: https"}},
		"oidc issuer is no URL": {func(c *Config) { c.API.OIDC.Issuer, c.API.OIDC.Audience = "login", "a" }, []string{"api.oidc.issuer: URL"}},
		"oidc, no issuer":       {func(c *Config) { c.API.OIDC.Audience = "a" }, []string{"api.oidc.audience: issuer is empty"}},
		"API cert, no key":      {func(c *Config) { c.API.TLS.CertFile = "a" }, []string{"api.tls.keyFile: along with"}},
		"API key, no cert":      {func(c *Config) { c.API.TLS.KeyFile = "a" }, []string{"api.tls.certFile: along with"}},
		"one address": {func(c *Config) {
			c.API.Tokens, c.Ops.Listen = []Token{token("a", hash, "read")}, c.API.Listen
		}, []string{"ops.listen: must not be the address of api.listen"}},
		"one address, API off": {func(c *Config) { c.Ops.Listen = c.API.Listen }, nil},

		"limits, lowest": {func(c *Config) {
			c.Ingest.Limits = Limits{BatchBytes: 2 << 20, Elements: 1, Headers: 1, HeaderBytes: 1}
		}, nil},
		"limits, too low": {func(c *Config) { c.Ingest.Limits.BatchBytes = 2<<20 - 1 }, []string{
			"ingest.limits.batchBytes: must be from 2MiB to 1GiB",
		}},
		"limits, too high": {func(c *Config) { c.Ingest.Limits.BatchBytes = 1<<30 + 1 }, []string{
			"ingest.limits.batchBytes: must be from 2MiB to 1GiB",
		}},
		"a password of line breaks": {func(c *Config) {
			c.Ingest.SASL = SASL{Mechanism: SASLPlain, Username: "u", Password: "\r\n"}
		}, []string{"ingest.sasl.password: line break"}},

		"linger":           {func(c *Config) { c.Batch.Linger = -1 }, []string{"batch.linger: must be from 0s to 1m"}},
		"backoff too long": {func(c *Config) { c.Backoff.Max = MaxBackoff + 1 }, []string{"backoff.max: at most 30m"}},
		"backoff reversed": {func(c *Config) { c.Backoff.Initial = time.Hour }, []string{"backoff.initial: at most backoff.max"}},
		"sending longer than a rebalance": {func(c *Config) { c.Send.Timeout = 20 * time.Second }, []string{
			"send.timeout: 20s × 3 is not less than 1m0s",
		}},
		"sending for ever": {func(c *Config) { c.Send.Timeout, c.Send.Attempts = 1<<62, 1<<30 }, []string{"send.timeout: is not less"}},
		"dead letters come back": {func(c *Config) { c.DeadLetter.Topic = c.Ingest.Topics[0] }, []string{
			"deadLetter.topic: must not be one of ingest.topics",
		}},
		"positions among the events":   {func(c *Config) { c.Positions.Topic = c.Ingest.Topics[0] }, []string{"positions.topic: a topic of its own"}},
		"positions with the status":    {func(c *Config) { c.Positions.Topic = c.Status.Topic }, []string{"positions.topic: a topic of its own"}},
		"positions, no topic's name":   {func(c *Config) { c.Positions.Topic = "a b" }, []string{"positions.topic: 1 to 249"}},
		"neither status nor positions": {func(c *Config) { c.Positions.Topic, c.Status.Topic = "", "" }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			c := Default()
			tc.change(&c)
			wantErrors(t, c.Validate(), tc.want...)
		})
	}
}

func TestNotices(t *testing.T) {
	c := Default()
	c.API.Tokens = []Token{{Name: "a", SHA256: hash, Role: RoleRead}}
	if n := c.Notices(); len(n) != 0 {
		t.Errorf("unasked for: %q", n)
	}
	c.Ops.Listen = ""
	c.Endpoints.AllowDevelopmentEmulator = true
	c.Ingest.SASL = SASL{Mechanism: SASLPlain, Username: "u", Password: "SECRET"}
	got := strings.Join(c.Notices(), "\n")
	for _, want := range []string{"ops.listen is empty", "in the clear", "turn encryption off"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	if strings.Contains(got, "SECRET") {
		t.Error("the password shows")
	}
	c.Ingest.TLS.Enabled = true
	if got := strings.Join(c.Notices(), "\n"); strings.Contains(got, "in the clear") {
		t.Errorf("with TLS: %q", got)
	}
}
