package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"twinegress/internal/outbound"
)

// Validate returns all values that aren't allowed, as Errors, or nil. It checks
// the values alone, not whether a file or a broker exists.
func (c Config) Validate() error { return c.check().err() }

func (c Config) check() Errors {
	c.canonical()
	var e Errors
	c.Ingest.check(&e)
	c.Endpoints.check(&e)
	c.API.check(&e)
	listen(&e, "ops.listen", c.Ops.Listen)
	if c.API.Enabled() && c.Ops.Listen == c.API.Listen && !strings.HasSuffix(c.Ops.Listen, ":0") {
		e.add("ops.listen", "must not be the address of api.listen: metrics and health need no token")
	}
	between(&e, "batch.linger", c.Batch.Linger, 0, time.Minute)
	atLeastOne(&e, "batch.maxEvents", c.Batch.MaxEvents)
	c.Backoff.check(&e)
	c.Send.check(&e, c.Ingest.RebalanceTimeout)
	topic(&e, "deadLetter.topic", c.DeadLetter.Topic)
	if slices.Contains(c.Ingest.Topics, c.DeadLetter.Topic) {
		e.add("deadLetter.topic", "must not be one of ingest.topics: a dead letter would come back for ever")
	}
	if c.Endpoints.Store == StoreKafka && (slices.Contains(c.Ingest.Topics, c.Endpoints.Topic) || c.DeadLetter.Topic == c.Endpoints.Topic) {
		e.add("endpoints.topic", "must be a topic of its own, neither one of ingest.topics nor deadLetter.topic")
	}
	if t := c.Status.Topic; t != "" {
		topic(&e, "status.topic", t)
		if slices.Contains(c.Ingest.Topics, t) || t == c.DeadLetter.Topic || c.Endpoints.Store == StoreKafka && t == c.Endpoints.Topic {
			e.add("status.topic", "must be a topic of its own, neither one of ingest.topics nor deadLetter.topic nor endpoints.topic")
		}
	}
	if t := c.Positions.Topic; t != "" {
		topic(&e, "positions.topic", t)
		if slices.Contains(c.Ingest.Topics, t) || t == c.DeadLetter.Topic || t == c.Status.Topic || c.Endpoints.Store == StoreKafka && t == c.Endpoints.Topic {
			e.add("positions.topic", "must be a topic of its own, neither one of ingest.topics nor deadLetter.topic nor endpoints.topic nor status.topic")
		}
	}
	positive(&e, "shutdown.timeout", c.Shutdown.Timeout)
	return e
}

func (i Ingest) check(e *Errors) {
	if len(i.Brokers) == 0 {
		e.add("ingest.brokers", "must name at least one broker, as host:port")
	}
	for n, b := range i.Brokers {
		at := fmt.Sprintf("ingest.brokers[%d]", n)
		switch host, err := hostPort(b, 1); {
		case strings.Contains(b, "@"): // not quoted: there may be a password in it
			e.add(at, "must be host:port, such as kafka:9092, without a user: that is ingest.sasl's")
		case err != nil:
			e.add(at, "must be host:port, such as kafka:9092, not %s: %v", quoted(b), err)
		case host == "":
			e.add(at, "must be host:port, such as kafka:9092, not %s: the host is missing", quoted(b))
		}
	}
	if len(i.Topics) == 0 {
		e.add("ingest.topics", "must name at least one topic")
	}
	for n, t := range i.Topics {
		at := fmt.Sprintf("ingest.topics[%d]", n)
		topic(e, at, t)
		if slices.Contains(i.Topics[:n], t) {
			e.add(at, "%s is listed more than once", quoted(t))
		}
	}
	if strings.TrimSpace(i.Group) == "" {
		e.add("ingest.group", "must not be empty")
	}
	oneOf(e, "ingest.start", i.Start, StartEarliest, StartLatest)
	oneOf(e, "ingest.protocol", i.Protocol, ProtocolClassic, ProtocolConsumer)
	if i.InstanceID != "" {
		topic(e, "ingest.instanceId", i.InstanceID) // brokers apply the same rule
	}
	// Brokers allow 6s to 30m by default; below 1s, one pause of the garbage
	// collector or of the scheduler causes a rebalance.
	between(e, "ingest.sessionTimeout", i.SessionTimeout, time.Second, 30*time.Minute)
	between(e, "ingest.rebalanceTimeout", i.RebalanceTimeout, time.Second, time.Hour)
	if i.MaxInFlightBytes <= 0 {
		e.add("ingest.maxInFlightBytes", "must be more than 0, such as 64MiB")
	}
	i.Limits.check(e)
	i.TLS.check(e)
	i.SASL.check(e)
}

// maxBatchBytes is the most that the Kafka client takes.
const maxBatchBytes = 1 << 30

func (l Limits) check(e *Errors) {
	// A batch of the size that topics take by default must fit.
	if l.BatchBytes < 2<<20 || l.BatchBytes > maxBatchBytes {
		e.add("ingest.limits.batchBytes", "must be from 2MiB to 1GiB, not %v", l.BatchBytes)
	}
	atLeastOne(e, "ingest.limits.elements", l.Elements)
	atLeastOne(e, "ingest.limits.headers", l.Headers)
	if l.HeaderBytes <= 0 {
		e.add("ingest.limits.headerBytes", "must be more than 0, such as 256KiB")
	}
}

func (t TLS) check(e *Errors) {
	for key, file := range map[string]string{"caFile": t.CAFile, "certFile": t.CertFile, "keyFile": t.KeyFile} {
		if file != "" && !t.Enabled {
			e.add("ingest.tls."+key, "is set, but ingest.tls.enabled is false")
		}
	}
	certificate(e, "ingest.tls.", t.CertFile, t.KeyFile)
}

func (s SASL) check(e *Errors) {
	if s.Mechanism == "" {
		for key, value := range map[string]string{"username": s.Username, "password": s.Password.Reveal(), "passwordFile": s.PasswordFile} {
			if value != "" {
				e.add("ingest.sasl."+key, "is set, but ingest.sasl.mechanism is empty")
			}
		}
		return
	}
	if !oneOf(e, "ingest.sasl.mechanism", s.Mechanism, SASLPlain, SASLScram256, SASLScram512, SASLOAuthBearer) {
		return
	}
	// A bearer token contains its user.
	if s.Username == "" && s.Mechanism != SASLOAuthBearer {
		e.add("ingest.sasl.username", "is required for %s", s.Mechanism)
	}
	switch {
	case s.Password != "" && strings.Trim(s.Password.Reveal(), "\r\n") == "":
		e.add("ingest.sasl.password", "is a line break and nothing else")
	case s.Password != "" && s.PasswordFile != "":
		e.add("ingest.sasl.passwordFile", "and ingest.sasl.password are both set: leave one out")
	case s.Password == "" && s.PasswordFile == "":
		what := ""
		if s.Mechanism == SASLOAuthBearer {
			what = ": the token"
		}
		e.add("ingest.sasl.password", "or passwordFile is required for %s%s", s.Mechanism, what)
	}
}

func (s Endpoints) check(e *Errors) {
	s.Hosts.check(e)
	oneOf(e, "endpoints.store", s.Store, StoreFile, StoreKafka, StoreMemory)
	switch {
	case s.Store == StoreFile && s.File == "":
		e.add("endpoints.file", "must not be empty with endpoints.store: file")
	case s.Store == StoreKafka:
		topic(e, "endpoints.topic", s.Topic)
		if s.SecretsKeyFile == "" {
			e.add("endpoints.secretsKeyFile", "is required with endpoints.store: kafka, since a topic is read by others too; make one with age-keygen")
		}
	case s.Store == StoreMemory && s.SecretsKeyFile != "":
		e.add("endpoints.secretsKeyFile", "is set, but endpoints.store: memory stores nothing")
	}
}

func (h Hosts) check(e *Errors) {
	for key, list := range map[string][]string{"allow": h.Allow, "deny": h.Deny} {
		for n, rule := range list {
			if err := outbound.CheckRule(rule); err != nil {
				e.add(fmt.Sprintf("endpoints.hosts.%s[%d]", key, n), "%v, not %q", err, rule)
			}
		}
	}
}

func (a API) check(e *Errors) {
	listen(e, "api.listen", a.Listen)
	for n, t := range a.Tokens {
		at := fmt.Sprintf("api.tokens[%d].", n)
		before := a.Tokens[:n]
		switch {
		case strings.TrimSpace(t.Name) == "":
			e.add(at+"name", "must not be empty: it says in the log who did what")
		case slices.ContainsFunc(before, func(o Token) bool { return o.Name == t.Name }):
			e.add(at+"name", "%s is used more than once", quoted(t.Name))
		}
		// Neither message shows the value: it may be the token itself.
		switch b, err := hex.DecodeString(t.SHA256); {
		case err != nil || len(b) != 32:
			e.add(at+"sha256", "must be the token's SHA-256, 64 hex digits, as from: printf %%s TOKEN | sha256sum")
		case slices.ContainsFunc(before, func(o Token) bool { return o.SHA256 == t.SHA256 }):
			e.add(at+"sha256", "is that of another token, too")
		}
		if t.Role != RoleRead && t.Role != RoleWrite {
			e.add(at+"role", "must be one of %s, %s, not %s", RoleRead, RoleWrite, quotedWord(t.Role))
		}
	}
	a.OIDC.check(e)
	certificate(e, "api.tls.", a.TLS.CertFile, a.TLS.KeyFile)
	if a.RateLimit < 1 || a.RateLimit > 1_000_000 {
		e.add("api.rateLimit", "must be from 1 to 1000000 requests a second, not %d", a.RateLimit)
	}
}

func (o OIDC) check(e *Errors) {
	if o.Issuer == "" {
		if o.Audience != "" {
			e.add("api.oidc.audience", "is set, but api.oidc.issuer is empty")
		}
		return
	}
	// An attacker who can change the issuer's replies can create tokens.
	issuer, err := url.Parse(o.Issuer)
	switch {
	case err != nil || issuer.Host == "" || issuer.User != nil || issuer.RawQuery != "" || issuer.Fragment != "":
		e.add("api.oidc.issuer", "must be the issuer's URL, as in its tokens' iss, such as https://login.example.com/tenant")
	case issuer.Scheme != "https" && (issuer.Scheme != "http" || !loopback(issuer.Hostname())):
		e.add("api.oidc.issuer", "must be an https:// URL; http:// is for this machine only")
	}
	// Without it a token for any other program would be accepted.
	for key, value := range map[string]string{
		"audience": o.Audience, "roleClaim": o.RoleClaim, "readRole": o.ReadRole, "writeRole": o.WriteRole, "eventsRole": o.EventsRole,
	} {
		if strings.TrimSpace(value) == "" {
			e.add("api.oidc."+key, "must not be empty along with api.oidc.issuer")
		}
	}
	if o.ReadRole != "" && o.ReadRole == o.WriteRole {
		e.add("api.oidc.readRole", "must not be the same as api.oidc.writeRole")
	}
	if o.EventsRole != "" && (o.EventsRole == o.ReadRole || o.EventsRole == o.WriteRole) {
		e.add("api.oidc.eventsRole", "must not be the same as api.oidc.readRole or writeRole: who may look at endpoints may not see what is in events")
	}
}

// loopback reports whether a host is this machine. "" means all addresses.
func loopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func (b Backoff) check(e *Errors) {
	positive(e, "backoff.initial", b.Initial)
	positive(e, "backoff.max", b.Max)
	if b.Max > MaxBackoff {
		e.add("backoff.max", "must be at most 30m, not %s", b.Max)
	} else if b.Max > 0 && b.Initial > b.Max {
		e.add("backoff.initial", "must be at most backoff.max, %s, not %s", b.Max, b.Initial)
	}
}

func (s Send) check(e *Errors, rebalance time.Duration) {
	ok := positive(e, "send.timeout", s.Timeout)
	ok = atLeastOne(e, "send.attempts", s.Attempts) && ok
	positive(e, "send.throttleLimit", s.ThrottleLimit)
	// A service that hangs fills its lanes and blocks dispatch, and a rebalance,
	// until its breaker opens. Beyond the group's rebalance timeout that would
	// lose the partitions. Division, because a product may overflow.
	if ok && rebalance > 0 && s.Timeout >= (rebalance+time.Duration(s.Attempts)-1)/time.Duration(s.Attempts) {
		e.add("send.timeout", "times send.attempts must be less than ingest.rebalanceTimeout: %s × %d is not less than %s",
			s.Timeout, s.Attempts, rebalance)
	}
}

// Notices returns remarks for the operator, which are logged at the start.
func (c Config) Notices() []string {
	var n []string
	switch {
	case c.API.Listen == "":
		n = append(n, "the Management API is off: api.listen is empty")
	case !c.API.Enabled():
		n = append(n, "the Management API is off: neither api.tokens nor api.oidc is set, so nobody could call it")
	case !c.API.TLS.Enabled():
		if host, _, _ := net.SplitHostPort(c.API.Listen); !loopback(host) {
			n = append(n, "tokens and keys travel to the Management API in the clear, unless something in front of it speaks TLS: api.tls is not set")
		}
	}
	if c.Ops.Listen == "" {
		n = append(n, "metrics and health checks are off: ops.listen is empty")
	}
	if m := c.Ingest.SASL.Mechanism; (m == SASLPlain || m == SASLOAuthBearer) && !c.Ingest.TLS.Enabled {
		n = append(n, "the Kafka password travels in the clear: ingest.sasl.mechanism is "+m+" and ingest.tls.enabled is false")
	}
	if c.Endpoints.AllowDevelopmentEmulator {
		n = append(n, "endpoints may turn encryption off: endpoints.allowDevelopmentEmulator is true")
	}
	return n
}

func oneOf(e *Errors, key, value string, allowed ...string) bool {
	if slices.Contains(allowed, value) {
		return true
	}
	e.add(key, "must be one of %s, not %s", strings.Join(allowed, ", "), quoted(value))
	return false
}

// certificate requires both files of a certificate or neither.
func certificate(e *Errors, section, cert, key string) {
	switch {
	case cert != "" && key == "":
		e.add(section+"keyFile", "must be set along with %scertFile", section)
	case cert == "" && key != "":
		e.add(section+"certFile", "must be set along with %skeyFile", section)
	}
}

func positive(e *Errors, key string, d time.Duration) bool {
	if d <= 0 {
		e.add(key, "must be more than 0, not %s", d)
	}
	return d > 0
}

func atLeastOne(e *Errors, key string, n int) bool {
	if n < 1 {
		e.add(key, "must be at least 1, not %d", n)
	}
	return n >= 1
}

func between(e *Errors, key string, d, low, high time.Duration) {
	if d < low || d > high {
		e.add(key, "must be from %s to %s, not %s", low, high, d)
	}
}

var legalTopic = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

// topic applies Kafka's rule for names.
func topic(e *Errors, key, name string) {
	if !legalTopic.MatchString(name) || name == "." || name == ".." {
		e.add(key, "must be 1 to 249 letters, digits, dots, underscores or hyphens, not %s", quoted(name))
	}
}

// listen accepts "" (off) or an address to listen on: the host may be empty, for
// all, and the port 0, for any.
func listen(e *Errors, key, addr string) {
	if addr == "" {
		return
	}
	switch _, err := hostPort(addr, 0); {
	case strings.Contains(addr, "@"):
		e.add(key, "must be host:port, without a user, or empty for off")
	case err != nil:
		e.add(key, "must be host:port, or empty for off, not %s: %v", quoted(addr), err)
	}
}

func hostPort(addr string, lowest int) (host string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", errors.New("the port is missing, or an IPv6 address not in [ ]")
	}
	if n, err := strconv.Atoi(port); err != nil || n < lowest || n > 65535 {
		return "", fmt.Errorf("the port must be a number from %d to 65535", lowest)
	}
	if strings.ContainsAny(host, " /@") {
		return "", errors.New("the host must be a name or an address")
	}
	return host, nil
}
