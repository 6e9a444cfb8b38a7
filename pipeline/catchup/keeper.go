package catchup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/event"
	"twinegress/internal/kafka"
	"twinegress/internal/untrusted"
	"twinegress/sinks"
	"twinegress/stages/ingest"
)

const (
	// tickInterval is how often lists are written beside the commits, and tidyInterval
	// how often those that no commit names any more are deleted.
	tickInterval, tidyInterval = 5 * time.Second, time.Minute
	// retryInterval is how long after a failure Kafka is asked again.
	retryInterval = 5 * time.Second
	// witnessTimeout bounds the wait for a list that may be there, and missingAttempts
	// is how often one that must be there is looked for before it is lost.
	witnessTimeout  = 15 * time.Second
	missingAttempts = 3
	// closeTimeout bounds the wait for what is under way at the end.
	closeTimeout = 2 * time.Second
	// grace is how long an endpoint or a seek that this copy doesn't know stays listed:
	// another copy may know it already.
	grace = 10 * time.Minute
)

// KeeperOptions are what a Keeper needs. All are required but Topic.
type KeeperOptions struct {
	Group  string
	Topics []string // the ingest topics
	Topic  string   // of the lists that don't fit into a commit; "": they are cut
	Behind *sinks.Behind
	// Groups shows who is behind to Kafka's tools: in groups of the prefix `<Group>.`.
	Groups bool
	// Sender returns the sender of an endpoint; nil: there is none.
	Sender  func(id string) *sinks.Sender
	Connect []kgo.Opt
	Log     *zap.Logger
}

// Keeper keeps the lists of who is behind in line with the senders' positions. It
// implements ingest.Positions.
type Keeper struct {
	options KeeperOptions
	client  *kgo.Client
	admin   *kadm.Client
	store   *store  // nil without a topic
	groups  *groups // nil if nobody is to see them
	// limit is how long metadata may be: less once brokers have refused it.
	limit atomic.Int64
	retry time.Duration // retryInterval
	due   chan struct{} // has a token when seeks may have to be applied

	retention retention

	mu          sync.Mutex
	partitions  map[*event.Ownership]*partition
	orders      orders
	seekProblem string // why a seek isn't applied yet
	losses      []loss
	lost        uint64 // partitions of which the list was lost, since the start
}

var _ ingest.Positions = (*Keeper)(nil)

// NewKeeper returns a Keeper. Nothing connects before it is needed.
func NewKeeper(o KeeperOptions) (*Keeper, error) {
	client, err := newStoreClient(o.Connect)
	if err != nil {
		return nil, err
	}
	k := &Keeper{
		options: o, client: client, admin: kadm.NewClient(client), due: make(chan struct{}, 1), retry: retryInterval,
		partitions: make(map[*event.Ownership]*partition),
	}
	k.limit.Store(maxInline)
	if o.Topic != "" {
		k.store = newStore(&k.options, client)
	}
	if o.Groups {
		k.groups = newGroups(k)
	}
	return k, nil
}

// Run applies seeks, and writes and deletes what nothing waits for, until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	if k.groups != nil {
		var groups sync.WaitGroup
		defer groups.Wait()
		groups.Go(func() { k.groups.run(ctx) })
	}
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	k.askRetention(ctx, time.Now())
	seek := false
	for tidied := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-k.due:
			seek = !k.applySeeks(ctx)
		case now := <-tick.C:
			seek = seek && !k.applySeeks(ctx)
			k.askRetention(ctx, now)
			k.writeWitnesses(ctx, now)
			if now.Sub(tidied) >= tidyInterval {
				k.tidy(ctx, now)
				tidied = now
			}
		}
	}
}

// Close ends the connection to Kafka, after the last commit. What nothing waits for
// has closeTimeout to be stored.
func (k *Keeper) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = k.client.Flush(ctx)
	k.client.Close()
}

// Assigned restores the positions that are committed beside a partition's mark. It
// implements ingest.Positions.
func (k *Keeper) Assigned(ctx context.Context, o *event.Ownership, committed int64, metadata string) error {
	p := &partition{keeper: k, owned: o, of: partitionID{o.Topic, o.Partition}, since: time.Now(), applied: make(map[uint32]bool)}
	// Nothing beyond what is committed was dispatched: positions that are, come again.
	o.Dispatched.Store(max(committed, 0))
	o.Handed.Store(max(committed, 0))
	k.mu.Lock()
	k.partitions[o] = p
	k.mu.Unlock()
	l, err := k.committedList(ctx, p, committed, metadata)
	if err != nil {
		return err
	}
	if l.left > 0 {
		k.lose(p.of, committed, fmt.Sprintf("%d positions didn't fit into the commit, the lowest of them is %d", l.left, l.leftFrom))
	}
	p.restore(&l)
	k.signal()
	return nil
}

// Metadata returns the list that is to be committed beside a mark that was read before
// the call. It implements ingest.Positions.
func (k *Keeper) Metadata(ctx context.Context, o *event.Ownership) (string, error) {
	p := k.find(o)
	if p == nil {
		return "", errNotRestored
	}
	return p.metadata(ctx, time.Now())
}

// Revoked ends what the keeper does to a partition's positions. It implements
// ingest.Positions.
func (k *Keeper) Revoked(o *event.Ownership) {
	if p := k.find(o); p != nil {
		p.mu.Lock()
		p.revoked = true
		p.mu.Unlock()
	}
}

// Released forgets the positions of a partition. It implements ingest.Positions.
func (k *Keeper) Released(o *event.Ownership) {
	k.mu.Lock()
	p := k.partitions[o]
	delete(k.partitions, o)
	k.mu.Unlock()
	if p != nil {
		p.writeWitness(time.Now(), 0)
	}
	k.options.Behind.End(o)
}

// TooLong records that the brokers have refused metadata for its length: what is
// longer than half of it is stored in the topic from now on. It implements
// ingest.Positions.
func (k *Keeper) TooLong(_ *event.Ownership, metadata string) {
	limit := max(int64(len(metadata))/2, minInline)
	if limit >= k.limit.Load() {
		return
	}
	k.limit.Store(limit)
	k.options.Log.Warn("brokers take less metadata beside an offset than by default (offset.metadata.max.bytes)", zap.Int("bytes", len(metadata)), zap.Int64("most", limit))
}

func (k *Keeper) find(o *event.Ownership) *partition {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.partitions[o]
}

func (k *Keeper) all() []*partition {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]*partition, 0, len(k.partitions))
	for _, p := range k.partitions {
		all = append(all, p)
	}
	return all
}

func (k *Keeper) signal() {
	select {
	case k.due <- struct{}{}:
	default:
	}
}

// committedList returns the list that a partition's last commit has, or names. It
// blocks while a list that is named can't be read: without it endpoints would miss
// what they have not got yet.
func (k *Keeper) committedList(ctx context.Context, p *partition, committed int64, metadata string) (list, error) {
	if committed < 0 {
		return list{}, nil
	}
	l, name, err := parseMetadata(metadata)
	switch {
	case err != nil:
		return k.witnessed(ctx, p, committed, metadata, err)
	case name == "":
		return l, nil
	}
	defer p.setProblem("")
	for missing := 0; ; {
		l, err = k.namedList(ctx, p, name)
		switch {
		case err == nil:
			return l, nil
		case ctx.Err() != nil:
			return list{}, context.Cause(ctx)
		case errors.Is(err, errGone):
			if missing++; missing == missingAttempts {
				return k.witnessed(ctx, p, committed, metadata, err)
			}
		}
		if p.setProblem(err.Error()) {
			k.options.Log.Error("a partition waits for the list of who is behind in it: trying again",
				zap.String("topic", p.of.topic), zap.Int32("partition", p.of.number), zap.String("problem", p.problemNow()))
		}
		if !kafka.Pause(ctx, k.retry) {
			return list{}, context.Cause(ctx)
		}
	}
}

// errGone means that a list is not in the topic, or isn't one.
var errGone = errors.New("the list that the commit names is not in the topic")

func (k *Keeper) namedList(ctx context.Context, p *partition, name string) (list, error) {
	if k.store == nil {
		return list{}, errors.New("it is in a topic, and positions.topic is empty: set it to the name of that topic")
	}
	found, err := k.store.lookUp(ctx, p.of, name)
	if err != nil {
		return list{}, err
	}
	if found.named == nil {
		return list{}, fmt.Errorf("%w %s: %s", errGone, k.options.Topic, name)
	}
	l, err := decodeList(found.named)
	if err != nil {
		return list{}, fmt.Errorf("%w %s: %s: %w", errGone, k.options.Topic, name, err)
	}
	p.found(name, found.others)
	return l, nil
}

// witnessed returns the list that a partition had last, as far as the topic has one.
// It is what is left if another program, or an older version, has committed since, or
// if the list that a commit names is gone.
func (k *Keeper) witnessed(ctx context.Context, p *partition, committed int64, metadata string, cause error) (list, error) {
	why := cause.Error()
	if errors.Is(cause, errForeign) || errors.Is(cause, errMalformed) {
		why = fmt.Sprintf("the metadata of its commit is %q: %v", untrusted.Text(shorten(metadata)), cause)
	}
	switch {
	case k.store != nil:
		asking, cancel := context.WithTimeout(ctx, witnessTimeout)
		defer cancel()
		found, err := k.store.lookUp(asking, p.of, "")
		if ctx.Err() != nil {
			return list{}, context.Cause(ctx)
		}
		if err == nil {
			p.found("", found.others)
			l, malformed := decodeList(found.last)
			switch {
			case found.last == nil && errors.Is(cause, errForeign):
				return list{}, nil // nobody was behind when this version committed last, if it ever did
			case found.last == nil:
				err = errors.New("and there is no earlier one")
			case malformed != nil:
				err = malformed
			default:
				k.options.Log.Warn("the last list that is known of who is behind in a partition is taken: its endpoints get some events twice",
					zap.String("topic", p.of.topic), zap.Int32("partition", p.of.number), zap.Int("endpoints", len(l.entries)), zap.String("reason", untrusted.Text(why)))
				return l, nil
			}
		}
		why += "; " + err.Error()
	case errors.Is(cause, errForeign):
		why += "; without positions.topic it is nowhere else"
	}
	if errors.Is(cause, errForeign) && !k.mayBeBehind() {
		return list{}, nil // an upgrade, and nobody to have a position yet
	}
	k.lose(p.of, committed, why)
	return list{applied: k.everyOrder()}, nil
}

func shorten(metadata string) string { return metadata[:min(len(metadata), 100)] }
