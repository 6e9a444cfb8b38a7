// Package kafkastore keeps the endpoints in a compacted Kafka topic, which all
// copies of the process share.
//
// The topic has one partition. A record's key is an endpoint's id, its value
// the endpoint as JSON with the secrets encrypted, or null if the endpoint was
// deleted. Every copy follows the topic, so the content of the topic is in force
// everywhere.
//
// Writing must ensure that only one of two concurrent changes creates a
// DeviceMessage endpoint, that an acknowledged change is durable, and that a copy
// which dies in the middle leaves nothing behind. A transactional producer ensures
// all three. All copies use one transactional id, and Kafka fences all but the last
// one that initialised it:
//
//	init the id         the producer before is fenced; its open transaction is
//	                    aborted
//	read to the end     from here on nobody else can write without fencing
//	                    this producer
//	edit, validate      against exactly what the topic holds
//	write, commit       if another copy fenced this one meanwhile: from the
//	                    start
//	read back           only then reply
//
// docs/decisions/0009 has the alternatives.
package kafkastore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/endpoints/secrets"
)

// Options configure a Store.
type Options struct {
	endpoints.Options
	Topic   string
	Keyring *secrets.Keyring // must not be nil: other users can read the topic
	Connect []kgo.Opt        // how to reach the brokers
	Logger  *zap.Logger
	// ClientLog, if set, is the Kafka client's logger; it replaces one in Connect.
	ClientLog kgo.Logger
}

// Store is an endpoints.Store in a Kafka topic. It is safe for concurrent use. It
// is connected only during Load and Watch. Watch may be called once: a Change waits
// until it begins, and fails after it has ended. Its methods are many because they
// share what is in force: topic.go creates and checks the topic, follow.go reads
// it, write.go and transaction.go write it.
type Store struct {
	o        Options
	live     endpoints.Live
	requests chan *request // to the writer, which Watch runs
	ended    chan struct{} // closed when Watch ends
	auditLog *zap.Logger

	mu       sync.Mutex
	table    table
	position int64           // records before this offset are in force
	moved    chan struct{}   // closed and replaced when position moves
	changed  chan struct{}   // closed and replaced when a change is put in force
	expected map[string]bool // own transactions by mark; true once read
	failure  error           // of the last attempt to write; nil: it succeeded
}

var _ endpoints.Store = (*Store)(nil)

// New returns a store. It doesn't connect.
func New(o Options) *Store {
	return &Store{
		o: o, requests: make(chan *request), ended: make(chan struct{}),
		auditLog: o.Logger.Named("endpoints").Named("audit"), // by its last name it passes every --log-level
		moved:    make(chan struct{}), changed: make(chan struct{}), expected: make(map[string]bool),
	}
}

// Load ensures that the topic exists and reads it, or on a later call what came
// since. It retries until ctx ends. A record that can't be read is left out and
// logged; if none can, Load returns an error: an instance with a wrong key file
// must not start without endpoints, and deliver nothing.
func (s *Store) Load(ctx context.Context) ([]endpoints.Endpoint, error) {
	if err := s.retry(ctx, "making sure of the endpoints topic", s.ensureTopic); err != nil {
		return nil, err
	}
	if err := s.retry(ctx, "reading the endpoints topic", s.readAll); err != nil {
		return nil, err
	}
	s.mu.Lock()
	err := s.table.unreadable()
	s.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("endpoints topic %s: %w", s.o.Topic, err)
	}
	set, _, _ := s.live.Take()
	return set, nil
}

// Current returns the set in force: see endpoints.Store.
func (s *Store) Current() []endpoints.Endpoint { return s.live.Current() }

// Watch follows the topic, and writes the changes that Change requests: see
// endpoints.Store.
func (s *Store) Watch(ctx context.Context, apply func([]endpoints.Endpoint)) error {
	defer close(s.ended)
	consumer, err := s.consumer(kgo.NewOffset().At(s.next()), kgo.FetchMaxWait(time.Second))
	if err != nil {
		return err
	}
	var parts sync.WaitGroup
	parts.Go(func() { s.live.Follow(ctx, apply) })
	parts.Go(func() { s.writeAll(ctx) })
	s.follow(ctx, consumer)
	consumer.Close()
	parts.Wait()
	return nil
}

// errEnded is the error of a Change after Watch has ended.
var errEnded = errors.New("the process is stopping")

// Change edits the set: see endpoints.Store.
func (s *Store) Change(ctx context.Context, edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	r := &request{ctx: ctx, edit: edit, answer: make(chan answer, 1)}
	select {
	case s.requests <- r:
	case <-s.ended:
		return nil, errEnded
	case <-ctx.Done():
		return nil, s.timeoutError(ctx)
	}
	select {
	case a := <-r.answer:
		return a.set, a.err
	case <-s.ended:
		select {
		case a := <-r.answer: // just before the end
			return a.set, a.err
		default:
		}
		if r.abandon() {
			return nil, errEnded
		}
		return nil, fmt.Errorf("%w: %w", endpoints.ErrUnknown, errEnded)
	case <-ctx.Done():
		if r.abandon() {
			return nil, s.timeoutError(ctx)
		}
		return nil, fmt.Errorf("%w: %w", endpoints.ErrUnknown, context.Cause(ctx))
	}
}

// timeoutError returns the error of a change that didn't begin before ctx ended.
func (s *Store) timeoutError(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := fmt.Errorf("endpoints topic %s: no time was left for the change, nothing has changed: %w", s.o.Topic, context.Cause(ctx))
	if s.failure != nil {
		err = fmt.Errorf("%w; the last attempt failed: %w", err, s.failure)
	}
	return err
}

// request is a change on its way to the writer.
type request struct {
	ctx    context.Context
	edit   func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)
	answer chan answer // buffered

	mu    sync.Mutex
	state state
}

type answer struct {
	set []endpoints.Endpoint
	err error
}

type state uint8

const (
	waiting   state = iota
	claimed         // it may already be in the topic
	abandoned       // its caller has returned
)

// abandon reports whether the request has no effect, now and later. It blocks while
// edit runs: edit doesn't outlive Change.
func (r *request) abandon() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == claimed {
		return false
	}
	r.state = abandoned
	return true
}

// claim runs f and claims the request, unless it was abandoned.
func (r *request) claim(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == abandoned || r.ctx.Err() != nil {
		return false
	}
	f()
	r.state = claimed
	return true
}

// release undoes claim. The request must not be in the topic.
func (r *request) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == claimed {
		r.state = waiting
	}
}
