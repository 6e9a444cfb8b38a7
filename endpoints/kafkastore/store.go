// Package kafkastore keeps the endpoints in a compacted Kafka topic, which any
// number of copies of the process share.
//
// The topic has one partition. A record's key is an endpoint's id, its value
// the endpoint as JSON with the secrets encrypted, or nothing where the endpoint
// was deleted. Every copy follows the topic, so what is in the topic is what is
// in force everywhere.
//
// Writing takes three things at once: that of two copies asked at the same
// moment only one may create a DeviceMessage endpoint; that a change which was
// acknowledged stays; and that a copy which dies in the middle leaves nothing
// behind. A transactional producer gives all three. All copies use one
// transactional id, and Kafka lets only the last one that asked for it commit:
//
//	ask for the id      whoever had it can't commit any more; what it had
//	                    open is aborted
//	read to the end     nobody else can add anything from here on without
//	                    asking for the id himself
//	edit, validate      against exactly what the topic holds
//	write, commit       or be told that another copy asked for the id
//	                    meanwhile: then from the start
//	read back           and only then answer
//
// docs/decisions/0009 says why not otherwise.
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
	Keyring *secrets.Keyring // not nil: others can read the topic
	Connect []kgo.Opt        // how to reach the brokers
	Logger  *zap.Logger
	// ClientLog, if set, is the Kafka client's, in place of one in Connect.
	ClientLog kgo.Logger
}

// Store is an endpoints.Store in a Kafka topic. It is safe for use by several
// goroutines. It holds no connection but within Load and Watch, and is watched
// once: a Change waits for Watch to begin, and fails once that has ended.
type Store struct {
	o        Options
	live     endpoints.Live
	requests chan *request // to the writer, which Watch runs
	ended    chan struct{} // closed when Watch ends

	mu       sync.Mutex
	table    table
	position int64           // what is before it in the topic is in force
	moved    chan struct{}   // closed, and replaced, when position moves
	changed  chan struct{}   // closed, and replaced, when a change is put in force
	expected map[string]bool // our own transactions by their mark; true once one was read
	failure  error           // of the last attempt to write, if it failed
}

var _ endpoints.Store = (*Store)(nil)

// New returns a store, without connecting.
func New(o Options) *Store {
	return &Store{
		o: o, requests: make(chan *request), ended: make(chan struct{}),
		moved: make(chan struct{}), changed: make(chan struct{}), expected: make(map[string]bool),
	}
}

// Load makes sure of the topic and reads it, the second time what came since.
// It waits for the brokers as long as ctx allows. A record that can't be read is left out, loudly; if none can,
// it is an error: an instance whose key file is wrong must not start without
// endpoints, and so without delivering anything.
func (s *Store) Load(ctx context.Context) ([]endpoints.Endpoint, error) {
	if err := s.untilItWorks(ctx, "making sure of the endpoints topic", s.ensureTopic); err != nil {
		return nil, err
	}
	if err := s.untilItWorks(ctx, "reading the endpoints topic", s.readAll); err != nil {
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

// Current is the set in force: see endpoints.Store.
func (s *Store) Current() []endpoints.Endpoint { return s.live.Current() }

// Watch follows the topic, and writes what Change asks for: see endpoints.Store.
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

// errEnded is why nothing can be changed any more.
var errEnded = errors.New("the process is stopping")

// Change edits the set: see endpoints.Store.
func (s *Store) Change(ctx context.Context, edit func([]endpoints.Endpoint) ([]endpoints.Endpoint, error)) ([]endpoints.Endpoint, error) {
	r := &request{ctx: ctx, edit: edit, answer: make(chan answer, 1)}
	select {
	case s.requests <- r:
	case <-s.ended:
		return nil, errEnded
	case <-ctx.Done():
		return nil, s.tooLate(ctx)
	}
	select {
	case a := <-r.answer:
		return a.set, a.err
	case <-s.ended:
		select {
		case a := <-r.answer: // at the last moment
			return a.set, a.err
		default:
		}
		if r.giveUp() {
			return nil, errEnded
		}
		return nil, fmt.Errorf("%w: %w", endpoints.ErrUnknown, errEnded)
	case <-ctx.Done():
		if r.giveUp() {
			return nil, s.tooLate(ctx)
		}
		return nil, fmt.Errorf("%w: %w", endpoints.ErrUnknown, context.Cause(ctx))
	}
}

// tooLate is the error of a change that had no time to happen.
func (s *Store) tooLate(ctx context.Context) error {
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
	answer chan answer // room for the one that comes

	mu    sync.Mutex
	state state
}

type answer struct {
	set []endpoints.Endpoint
	err error
}

type state uint8

const (
	waiting state = iota
	claimed       // it may be in the topic any moment
	givenUp       // its caller is gone
)

// giveUp reports whether nothing came, or will come, of the request. It waits
// while edit runs: when Change returns, edit is over.
func (r *request) giveUp() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == claimed {
		return false
	}
	r.state = givenUp
	return true
}

// claim runs a part of the writing, unless the caller is gone.
func (r *request) claim(f func()) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == givenUp || r.ctx.Err() != nil {
		return false
	}
	f()
	r.state = claimed
	return true
}

// release takes a claim back: for certain, nothing of it is in the topic.
func (r *request) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state == claimed {
		r.state = waiting
	}
}
