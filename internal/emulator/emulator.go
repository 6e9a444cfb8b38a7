package emulator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"twinegress/internal/emulator/amqp"
)

// Emulator is a set of running services. It has a method for each thing that a
// test, the demo or the benchmark reads or changes at run time.
type Emulator struct {
	cfg   Config
	ca    *authority
	ns    *namespace
	grids map[string]*gridTopic
	stats *statsServer

	faults sync.Mutex // one change of faults at a time, none after Close
	closed bool
}

// Start starts the services of cfg. They run until Close; ctx bounds the start only.
func Start(ctx context.Context, cfg Config) (_ *Emulator, err error) {
	if err := cfg.finalize(); err != nil {
		return nil, err
	}
	e := &Emulator{cfg: cfg, grids: map[string]*gridTopic{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	hosts := append([]string{hostOf(cfg.AMQPListen)}, cfg.CertHosts...)
	for _, t := range cfg.EventGridTopics {
		hosts = append(hosts, hostOf(t.Listen))
	}
	if e.ca, err = newAuthority(hosts...); err != nil {
		return nil, err
	}
	tlsConfig := e.ca.config()
	if !cfg.AMQPTLS {
		tlsConfig = nil
	}
	if e.ns, err = startNamespace(ctx, &e.cfg, tlsConfig); err != nil {
		return nil, err
	}
	for _, t := range cfg.EventGridTopics {
		if e.grids[t.Name], err = startGrid(ctx, &e.cfg, t, e.ca); err != nil {
			delete(e.grids, t.Name)
			return nil, err
		}
	}
	if cfg.StatsListen != "" {
		if e.stats, err = startStats(ctx, e, cfg.StatsListen); err != nil {
			return nil, err
		}
	}
	return e, nil
}

func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// Close stops all services and waits for their goroutines.
func (e *Emulator) Close() error {
	e.faults.Lock()
	closed := e.closed
	e.closed = true
	e.faults.Unlock()
	if closed {
		return nil
	}
	var err error
	if e.stats != nil {
		err = e.stats.stop()
	}
	for _, g := range e.grids {
		g.stop()
	}
	if e.ns != nil {
		e.ns.server.Close()
	}
	return err
}

// AMQPAddr returns the namespace's host:port.
func (e *Emulator) AMQPAddr() string { return e.ns.server.Addr() }

// StatsAddr returns the stats server's host:port, "" without one.
func (e *Emulator) StatsAddr() string {
	if e.stats == nil {
		return ""
	}
	return e.stats.addr
}

// ConnectionString returns the namespace's connection string, without EntityPath.
func (e *Emulator) ConnectionString(k Key) string { return e.connectionString(e.cfg.Keys, k) }

// EntityConnectionString returns a connection string with EntityPath and the
// entity's own keys, if it has some.
func (e *Emulator) EntityConnectionString(entity string, k Key) string {
	keys := e.cfg.Keys
	if t := e.ns.entity(entity); t != nil {
		keys = t.keys
	}
	return e.connectionString(keys, k) + ";EntityPath=" + entity
}

func (e *Emulator) connectionString(keys KeyPair, k Key) string {
	s := fmt.Sprintf("Endpoint=sb://%s;SharedAccessKeyName=%s;SharedAccessKey=%s", e.AMQPAddr(), keys.Policy, keys.Of(k))
	if !e.cfg.AMQPTLS {
		s += ";UseDevelopmentEmulator=true"
	}
	return s
}

// EventGridHost returns the host:port of an Event Grid topic, an endpoint's
// `path`, or "" if there is no such topic.
func (e *Emulator) EventGridHost(topic string) string {
	if g := e.grids[topic]; g != nil {
		return g.addr()
	}
	return ""
}

// EventGridKey returns a topic's key.
func (e *Emulator) EventGridKey(topic string, k Key) string {
	if g := e.grids[topic]; g != nil {
		return g.keys.Of(k)
	}
	return ""
}

// CAPEM returns the CA certificate that clients have to trust (send.caFile).
func (e *Emulator) CAPEM() []byte { return e.ca.pem }

// Stats returns the counts of all entities.
func (e *Emulator) Stats() Stats {
	s := Stats{Entities: []EntityStats{}}
	for _, t := range e.all() {
		s.Entities = append(s.Entities, t.stats())
	}
	return s
}

// all returns the AMQP entities by name, then the Event Grid topics as configured.
func (e *Emulator) all() []*entity {
	out := e.ns.all()
	for _, t := range e.cfg.EventGridTopics {
		out = append(out, e.grids[t.Name].entity)
	}
	return out
}

// Wait blocks until ok returns true for the counts, or until ctx ends.
func (e *Emulator) Wait(ctx context.Context, ok func(Stats) bool) error {
	t := time.NewTicker(2 * time.Millisecond) // a notification per message would cost too much
	defer t.Stop()
	for !ok(e.Stats()) {
		select {
		case <-ctx.Done():
			return fmt.Errorf("emulator: waiting for messages: %w", context.Cause(ctx))
		case <-t.C:
		}
	}
	return nil
}

// Messages returns the messages that an entity recorded, oldest first.
func (e *Emulator) Messages(entity string) []Message {
	if t := e.find(entity); t != nil {
		return t.messages(0)
	}
	return nil
}

// Reset clears all counts and recorded messages.
func (e *Emulator) Reset() {
	for _, t := range e.all() {
		t.reset()
	}
}

func (e *Emulator) find(name string) *entity {
	if g := e.grids[name]; g != nil {
		return g.entity
	}
	return e.ns.entity(name)
}

// SetFault injects a fault into an entity or Namespace, in place of its former one.
func (e *Emulator) SetFault(name string, f Fault) error {
	if err := f.validate(); err != nil {
		return err
	}
	return e.change(name, &f)
}

// ClearFault ends the fault of an entity or of Namespace, if it has one.
func (e *Emulator) ClearFault(name string) error { return e.change(name, nil) }

func (e *Emulator) change(name string, f *Fault) error {
	e.faults.Lock()
	defer e.faults.Unlock()
	if e.closed {
		return errors.New("emulator: it is closed")
	}
	g, t := e.grids[name], e.ns.entity(name)
	switch {
	case f != nil && len(f.Partitions) > 0 && (t == nil || t.kind != KindEventHub || slices.Max(f.Partitions) >= len(t.partitions)):
		return fmt.Errorf("emulator: %q has no partitions %v", name, f.Partitions)
	case name == Namespace:
		return e.ns.setFault(f)
	case g != nil:
		return g.setFault(f)
	case t == nil:
		return fmt.Errorf("emulator: there is no entity %q", name)
	case f != nil && f.Down:
		return fmt.Errorf("emulator: %q shares its listener; down is for %q and Event Grid topics", name, Namespace)
	}
	active := activate(f)
	t.fault.Store(active)
	e.ns.apply(t, active)
	return nil
}

// setFault sets or ends a fault of the whole namespace.
func (n *namespace) setFault(f *Fault) error {
	active := activate(f)
	n.fault.Store(active)
	n.server.SetHang(f != nil && f.Hang)
	if f != nil && f.Silent {
		n.server.Each((*amqp.Conn).Freeze)
	}
	if f != nil && f.Down {
		n.server.Down()
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := n.server.Up(ctx); err != nil {
		return fmt.Errorf("emulator: namespace: %w", err)
	}
	for _, t := range n.all() {
		if t.fault.Load() == nil {
			n.apply(t, active)
		}
	}
	return nil
}

// apply applies a fault to the live links; nil ends it.
func (n *namespace) apply(t *entity, f *activeFault) {
	live := func(match func(linkKey) bool) []*amqp.Link {
		return slices.DeleteFunc(t.liveLinks(match), func(l *amqp.Link) bool {
			to, ok := l.Data.(*target)
			return f != nil && (!ok || !f.concerns(to.partition))
		})
	}
	if f == nil || !f.NoCredit {
		for _, l := range live(nil) {
			l.GrantCredit()
		}
	}
	if f == nil {
		return
	}
	if f.Silent {
		for _, l := range live(nil) {
			l.Conn().Freeze()
		}
		return
	}
	detach := func(condition string, match func(linkKey) bool) (n int) {
		for _, l := range live(match) {
			l.Detach(&amqp.Error{Condition: condition, Description: f.conditionText(condition, t.name)})
			l.Conn().Flush()
			n++
		}
		return n
	}
	switch {
	case f.RejectKey != "":
		detach("amqp:unauthorized-access", f.rejects)
	case f.Refuse != "":
		detach(f.Refuse, nil)
	case f.Detach != "" && f.Every <= 1:
		if detach(f.Detach, nil) > 0 {
			f.applied.Add(1)
		}
	}
}
