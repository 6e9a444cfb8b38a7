package emulator

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"twinegress/internal/emulator/amqp"
)

// The AMQP limits that Azure sets for its peers.
const (
	idleTimeout = 60 * time.Second
	linkCredit  = 1000
	windowSize  = 5000
)

// namespace is the AMQP service: it authorizes, attaches and stores.
// Most of its methods are those of amqp.Backend and one for each management operation.
type namespace struct {
	cfg     *Config
	log     *zap.Logger
	started time.Time
	server  *amqp.Server
	fault   atomic.Pointer[activeFault]

	mu       sync.RWMutex
	entities map[string]*entity // by lower-case name: names don't differ by case
}

// session is the claims of a connection by the path that they are for. Only its
// reading goroutine uses it.
type session map[string]claim

// claim is an accepted token.
type claim struct {
	linkKey
	expires time.Time
}

// target is the entity and partition that a link sends to.
type target struct {
	entity    *entity
	partition int // -1: the entity picks one
	key       linkKey
}

func startNamespace(ctx context.Context, cfg *Config, tlsConfig *tls.Config) (*namespace, error) {
	n := &namespace{cfg: cfg, log: cfg.Logger, started: time.Now(), entities: map[string]*entity{}}
	for _, h := range cfg.Hubs {
		n.add(newEntity(cfg, h.Name, KindEventHub, cmp.Or(h.Partitions, cfg.Partitions), h.MaxMessageBytes, h.Keys))
	}
	for _, t := range cfg.Topics {
		e := newEntity(cfg, t.Name, KindServiceBus, 1, t.MaxMessageBytes, t.Keys)
		e.maxBatch, e.untold = cmp.Or(t.MaxBatchBytes, e.maxBatch), t.UntoldBatchLimit
		n.add(e)
	}
	server, err := amqp.Listen(ctx, amqp.Options{
		Address: cfg.AMQPListen, TLS: tlsConfig, MaxFrameBytes: cfg.MaxFrameBytes,
		IdleTimeout: idleTimeout, Credit: linkCredit, Window: windowSize, Logger: cfg.Logger,
	}, n)
	if err != nil {
		return nil, fmt.Errorf("emulator: namespace on %s: %w", cfg.AMQPListen, err)
	}
	n.server = server
	return n, nil
}

func (n *namespace) add(e *entity) { n.entities[strings.ToLower(e.name)] = e }

func (n *namespace) entity(name string) *entity {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.entities[strings.ToLower(name)]
}

func (n *namespace) all() []*entity {
	n.mu.RLock()
	defer n.mu.RUnlock()
	out := make([]*entity, 0, len(n.entities))
	for _, e := range n.entities {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b *entity) int { return strings.Compare(a.name, b.name) })
	return out
}

// create creates an undeclared entity of the kind that the peer's SDK sends to.
func (n *namespace) create(name string, c *amqp.Conn) *entity {
	kind, partitions := KindEventHub, n.cfg.Partitions
	if strings.Contains(strings.ToLower(c.Agent), "servicebus") {
		kind, partitions = KindServiceBus, 1
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if e := n.entities[strings.ToLower(name)]; e != nil {
		return e // another connection created it
	}
	e := newEntity(n.cfg, name, kind, partitions, 0, nil)
	n.add(e)
	n.log.Info("emulator: entity created", zap.String("entity", name), zap.String("kind", kind))
	return e
}

// faultOf returns the active fault of an entity, or of one of its partitions: the entity's own, else
// the namespace's. e may be nil.
func (n *namespace) faultOf(e *entity, partition int) *activeFault {
	if e != nil {
		if f := e.fault.Load(); f != nil && f.concerns(partition) {
			return f
		}
	}
	return n.fault.Load()
}

// split splits "hub/Partitions/3" and "hub/$management" after the name.
func split(address string) (name, rest string) {
	address = strings.Trim(address, "/")
	lower := strings.ToLower(address)
	for _, sep := range []string{"/partitions/", "/$management", "/consumergroups/", "/subscriptions/"} {
		if i := strings.Index(lower, sep); i >= 0 {
			return address[:i], address[i+1:]
		}
	}
	return address, ""
}

// partitionOf returns the partition that the rest of an address names; -1 is none.
func partitionOf(rest string) int {
	_, id, _ := strings.Cut(rest, "/")
	if p, err := strconv.Atoi(id); err == nil {
		return p
	}
	return -1
}

// Attach implements amqp.Backend.
func (n *namespace) Attach(l *amqp.Link) *amqp.Error {
	address := strings.Trim(l.Address(), "/")
	if address == "$cbs" {
		l.RPC = true
		return nil
	}
	s := sessionOf(l.Conn())
	c, ok := s.claim(address)
	if !ok {
		return unauthorized("no valid token was put for it")
	}
	if address == "$management" {
		l.RPC = true
		return nil
	}
	name, rest := split(address)
	e := n.entity(name)
	f := n.faultOf(e, partitionOf(rest)).fault()
	if f != nil && f.Hang {
		l.Conn().Freeze()
		return nil
	}
	if f.rejects(c.linkKey) {
		return unauthorized("the key is revoked")
	}
	if f != nil && f.Refuse != "" {
		return &amqp.Error{Condition: f.Refuse, Description: f.conditionText(f.Refuse, name)}
	}
	if e == nil && n.cfg.AutoCreate {
		e = n.create(name, l.Conn())
	}
	if e == nil {
		return &amqp.Error{Condition: "amqp:not-found", Description: "The messaging entity '" + name + "' could not be found."}
	}
	if strings.EqualFold(rest, "$management") {
		l.RPC = true
		return nil
	}
	if l.Receiver() {
		return &amqp.Error{Condition: "amqp:not-implemented", Description: "The emulator takes messages only; see its /messages."}
	}
	return n.attachSender(l, e, f, c, rest)
}

func (n *namespace) attachSender(l *amqp.Link, e *entity, f *Fault, c claim, rest string) *amqp.Error {
	t := &target{entity: e, partition: -1, key: c.linkKey}
	if rest != "" {
		_, id, _ := strings.Cut(rest, "/")
		p, err := strconv.Atoi(id)
		if err != nil || p < 0 || p >= len(e.partitions) || e.kind != KindEventHub {
			return &amqp.Error{
				Condition:   "com.microsoft:argument-out-of-range",
				Description: fmt.Sprintf("The specified partition '%s' is invalid for an EventHub partition sender with %d partitions.", id, len(e.partitions)),
			}
		}
		t.partition = p
	}
	l.Data = t
	l.MaxMessageBytes = e.maxBytes
	if e.kind == KindServiceBus {
		l.MaxBatchBytes, l.TellBatchBytes = e.maxBatch, !e.untold
	}
	if f != nil && f.NoCredit {
		l.Credit = 0
	}
	return nil
}

// Attached implements amqp.Backend. It checks the fault again: one that was set
// after Attach checked did not reach this link, which was not live yet.
func (n *namespace) Attached(l *amqp.Link) {
	t, ok := l.Data.(*target)
	if !ok {
		return
	}
	t.entity.mu.Lock()
	t.entity.links[l] = t.key
	t.entity.mu.Unlock()
	f := n.faultOf(t.entity, t.partition).fault()
	switch {
	case f.rejects(t.key):
		l.Detach(unauthorized("the key is revoked"))
	case f != nil && f.Refuse != "":
		l.Detach(&amqp.Error{Condition: f.Refuse, Description: f.conditionText(f.Refuse, t.entity.name)})
	case l.Credit == 0 && (f == nil || !f.NoCredit):
		l.GrantCredit()
	}
}

// Detached implements amqp.Backend.
func (n *namespace) Detached(l *amqp.Link) {
	if t, ok := l.Data.(*target); ok {
		t.entity.mu.Lock()
		delete(t.entity.links, l)
		t.entity.mu.Unlock()
	}
}

func unauthorized(why string) *amqp.Error {
	return &amqp.Error{
		Condition:   "amqp:unauthorized-access",
		Description: "Unauthorized access. 'Send' claim(s) are required to perform this operation: " + why + ".",
	}
}

// Arriving implements amqp.Backend.
func (n *namespace) Arriving(l *amqp.Link) {
	t, ok := l.Data.(*target)
	if !ok {
		return
	}
	if f := n.faultOf(t.entity, t.partition); f != nil && f.Cut == CutMid && f.applies() {
		t.entity.refuse()
		l.Conn().Abort()
	}
}

// Deliver implements amqp.Backend.
func (n *namespace) Deliver(l *amqp.Link, d amqp.Delivery) {
	t, ok := l.Data.(*target)
	if !ok {
		return
	}
	var outcome amqp.Outcome
	f := n.faultOf(t.entity, t.partition)
	faulty := f != nil && f.delivery() && f.Cut != CutMid && f.applies()
	if faulty {
		outcome = n.applyFault(l, t, d, f)
		if outcome == (amqp.Outcome{}) {
			return // applyFault settled it, or it must not be settled
		}
	} else {
		outcome = n.store(t, d, f)
	}
	if faulty && f.Delay > 0 && !d.Settled {
		id := d.ID
		l.Conn().After(time.Duration(f.Delay), func() { l.Settle(id, outcome) })
		return
	}
	if !d.Settled {
		l.Settle(d.ID, outcome)
	}
}

// store stores a delivery, unless it is poison or malformed.
func (n *namespace) store(t *target, d amqp.Delivery, f *activeFault) amqp.Outcome {
	if f != nil && f.Poison != "" && poisoned(d, []byte(f.Poison)) {
		t.entity.refuse()
		condition := cmp.Or(f.Condition, "amqp:not-allowed")
		return amqp.Rejected(condition, cmp.Or(f.Description, "A message of the batch is not allowed."))
	}
	if err := t.entity.store(t.partition, d.Format, d.Payload); err != nil {
		return amqp.Rejected("amqp:decode-error", err.Error())
	}
	return amqp.Accepted
}

// poisoned reports whether a message's body contains text; ids and properties don't count.
func poisoned(d amqp.Delivery, text []byte) (found bool) {
	_ = amqp.EachMessage(d.Format, d.Payload, func(m []byte) {
		if body, err := amqp.Body(m); err == nil && bytes.Contains(body, text) {
			found = true
		}
	})
	return found
}

// applyFault applies a delivery fault. It returns the outcome to settle the
// delivery with, or none if it isn't to be settled by the caller.
func (n *namespace) applyFault(l *amqp.Link, t *target, d amqp.Delivery, f *activeFault) amqp.Outcome {
	none := amqp.Outcome{}
	c := l.Conn()
	switch {
	case f.Cut == CutDuring, f.Cut == CutAfter:
		outcome := n.store(t, d, f)
		c.Flush()
		l.Settle(d.ID, outcome)
		if f.Cut == CutDuring {
			c.CutDuring()
		} else {
			c.CutAfter()
		}
		return none
	case f.NeverSettle && f.Cut+f.Detach+f.Outcome == "" && f.Throttle == 0:
		n.store(t, d, f)
		return none
	case f.Cut+f.Detach+f.Outcome == "" && f.Throttle == 0:
		return n.store(t, d, f) // only delayed
	}
	t.entity.refuse()
	switch {
	case f.Cut == CutClose:
		c.CloseWith(&amqp.Error{Condition: "amqp:connection:forced", Description: cmp.Or(f.Description, "The connection was closed by the emulator.")})
		return none
	case f.Cut != "":
		c.Abort()
		return none
	case f.Detach != "":
		l.Detach(&amqp.Error{Condition: f.Detach, Description: f.conditionText(f.Detach, t.entity.name)})
		return none
	case f.Throttle > 0:
		return amqp.Rejected("com.microsoft:server-busy", throttleText(t.entity.kind, f.Throttle))
	case f.Outcome == OutcomeReleased:
		return amqp.Released
	case f.Outcome == OutcomeModified:
		return amqp.Modified
	}
	condition := cmp.Or(f.Condition, "amqp:internal-error")
	return amqp.Rejected(condition, f.conditionText(condition, t.entity.name))
}

// throttleText returns the services' text.
func throttleText(kind string, seconds int) string {
	code := "Error code : 50002. Sub error : 102."
	what := "entity"
	if kind == KindServiceBus {
		code, what = "Error code : 50009.", "namespace"
	}
	return fmt.Sprintf("The request was terminated because the %s is being throttled. %s Please wait %d seconds and try again. "+
		"To know more visit https://aka.ms/sbResourceMgrExceptions and https://aka.ms/ServiceBusThrottling", what, code, seconds)
}
