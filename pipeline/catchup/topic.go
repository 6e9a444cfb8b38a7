package catchup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/internal/kafka"
	"twinegress/internal/untrusted"
)

const (
	// requestTimeout bounds a request to brokers that don't answer, storeTimeout the
	// storing of a list, and readTimeout one reading of the topic.
	requestTimeout = 5 * time.Second
	storeTimeout   = 10 * time.Second
	readTimeout    = time.Minute
	// failFor is how long a store that failed is not tried again: one partition after
	// the other would wait for it.
	failFor = 5 * time.Second
	// maxListFetch bounds what one fetch brings, and maxUnpacked what a batch may unpack to.
	maxListFetch, maxUnpacked = 2 << 20, 8 << 20
	// maxLookups bounds what one reading looks for, and maxOthers the names that it
	// finds besides: what is left is found by the next one.
	maxLookups, maxOthers = 16, 1000
)

// topicConfig keeps one list of each name. Nothing is deleted by age: a list may be
// named for as long as a group stands still.
var topicConfig = map[string]string{
	"cleanup.policy": "compact", "segment.bytes": "67108864", "segment.ms": "3600000",
	"min.cleanable.dirty.ratio": "0.1", "delete.retention.ms": "3600000",
}

// store keeps lists in the topic. A record's key is group, topic and partition, and
// behind them the name of the list: the process that wrote it and a number, so that no
// other one can overwrite what a commit names. Only lastName is anybody's.
type store struct {
	topic, group string
	process      string // names are of it
	connect      []kgo.Opt
	client       *kgo.Client // writes, and asks the brokers
	log          *zap.Logger

	reading chan struct{} // has room for the one who reads

	mu       sync.Mutex
	number   uint64
	ensured  bool
	failedAt time.Time
	failed   error // until something is stored
	failures uint64
	wanted   []*lookup
}

// lastName is the name of the list that a partition had last: a witness for whoever
// finds that another program, or an older version, has committed over it. It is
// written beside the commits now and then, and is no truth.
const lastName = "last"

// newStoreClient returns the client that writes lists and asks the brokers for offsets.
func newStoreClient(connect []kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		// Without producer ids, which may need a right of their own: a list that is
		// written twice is the same.
		kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchMaxBytes(maxList + 16<<10),
		kgo.RecordDeliveryTimeout(storeTimeout), kgo.ProduceRequestTimeout(requestTimeout),
		kgo.MaxBufferedBytes(16 << 20),
		kgo.RequestTimeoutOverhead(requestTimeout), kgo.DialTimeout(requestTimeout),
		kgo.MetadataMinAge(500 * time.Millisecond), kgo.UnknownTopicRetries(1),
	}, connect...)...)
}

func newStore(o *KeeperOptions, client *kgo.Client) *store {
	return &store{
		topic: o.Topic, group: o.Group, process: strings.ReplaceAll(uuid.NewString(), "-", "")[:12],
		connect: o.Connect, client: client, log: o.Log, reading: make(chan struct{}, 1),
	}
}

func (s *store) newName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	return s.process + "-" + strconv.FormatUint(s.number, 10)
}

func (s *store) key(of partitionID, name string) string {
	return s.group + "/" + of.topic + "/" + strconv.Itoa(int(of.number)) + "/" + name
}

// parseKey returns which list of this group a record has. A topic's name has no
// slash; a group's may.
func (s *store) parseKey(key string) (of partitionID, name string, ok bool) {
	parts := strings.Split(key, "/")
	if len(parts) < 4 {
		return partitionID{}, "", false
	}
	end := len(parts) - 3
	number, err := strconv.ParseInt(parts[end+1], 10, 32)
	of, name = partitionID{parts[end], int32(number)}, parts[end+2]
	return of, name, err == nil && s.key(of, name) == key && strings.Join(parts[:end], "/") == s.group
}

// put stores a list under a new name, on all replicas in sync, and returns the name.
func (s *store) put(ctx context.Context, of partitionID, encoded []byte) (name string, err error) {
	if len(encoded) > maxList {
		return "", fmt.Errorf("the list of who is behind in %v has %d bytes, and a record has room for %d", of, len(encoded), maxList)
	}
	if err := s.available(time.Now()); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err = s.ensure(ctx); err == nil {
		name = s.newName()
		err = s.client.ProduceSync(ctx, s.record(of, name, encoded)).FirstErr()
	}
	err = s.refused(of, err)
	s.note(err, time.Now())
	return name, err
}

// putLater stores what nothing depends on; nil deletes. It reports whether the record is
// under way: not before somebody has made sure of the topic, or while that fails.
func (s *store) putLater(of partitionID, name string, encoded []byte) bool {
	s.mu.Lock()
	ensured := s.ensured
	s.mu.Unlock()
	if !ensured || len(encoded) > maxList {
		return false
	}
	// It outlasts its caller, and ends with the client at the latest.
	s.client.TryProduce(s.client.Context(), s.record(of, name, encoded), func(_ *kgo.Record, err error) {
		s.note(s.refused(of, err), time.Now())
	})
	return true
}

// refused returns the error of a record with what to do about it.
func (s *store) refused(of partitionID, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the topic %s doesn't take the list of who is behind in %v (positions.topic; allow Write on it): %w", s.topic, of, err)
}

// failing returns how many records were not stored, and why the last one wasn't; nil:
// it was.
func (s *store) failing() (failures uint64, failed error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failures, s.failed
}

func (s *store) record(of partitionID, name string, encoded []byte) *kgo.Record {
	return &kgo.Record{Topic: s.topic, Partition: 0, Key: []byte(s.key(of, name)), Value: encoded}
}

// available returns the last error while it is too early to try again.
func (s *store) available(now time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil && now.Sub(s.failedAt) < failFor {
		return s.failed
	}
	return nil
}

// note records whether the topic takes what is stored, and logs each change of that.
func (s *store) note(err error, now time.Time) {
	s.mu.Lock()
	before := s.failed
	s.failed = err
	if err != nil {
		s.failures++
		s.failedAt, s.ensured = now, false
	}
	s.mu.Unlock()
	switch {
	case err != nil && before == nil:
		s.log.Error("positions can't be stored: trying again", zap.String("topic", s.topic), zap.String("problem", untrusted.Text(err.Error())))
	case err == nil && before != nil:
		s.log.Info("positions are stored again", zap.String("topic", s.topic))
	}
}

// ensure creates the topic if it is missing.
func (s *store) ensure(ctx context.Context) error {
	s.mu.Lock()
	ensured := s.ensured
	s.mu.Unlock()
	if ensured {
		return nil
	}
	_, created, err := kafka.EnsureTopic(ctx, kadm.NewClient(s.client), s.topic, "Read and Write", topicConfig)
	if err != nil {
		return err
	}
	if created {
		s.log.Info("created the positions topic", zap.String("topic", s.topic))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ensured = true
	return nil
}

// lookup is what somebody waits for: one partition's lists.
type lookup struct {
	of   partitionID
	name string // "": none but the last one
	done chan struct{}
	lists
	err error
}

// lists are what the topic has of a partition.
type lists struct {
	named  []byte          // the one of the name that was asked for; nil: it isn't there
	last   []byte          // nil: there is none
	others map[string]bool // names that nobody asked for
}

// lookUp returns what the topic has of a partition. Whoever asks while others wait for
// a reading shares the next one.
func (s *store) lookUp(ctx context.Context, of partitionID, name string) (lists, error) {
	l := &lookup{of: of, name: name, done: make(chan struct{})}
	s.mu.Lock()
	s.wanted = append(s.wanted, l)
	s.mu.Unlock()
	for {
		select {
		case <-l.done:
			return l.lists, l.err
		case <-ctx.Done():
			return lists{}, context.Cause(ctx)
		case s.reading <- struct{}{}:
			s.mu.Lock()
			n := min(len(s.wanted), maxLookups)
			wanted := s.wanted[:n:n]
			s.wanted = s.wanted[n:]
			s.mu.Unlock()
			if n > 0 {
				err := s.read(ctx, wanted)
				for _, w := range wanted {
					// The error may be the end of the reader's own context: the others
					// ask again.
					w.err = err
					close(w.done)
				}
			}
			<-s.reading
		}
	}
}

// read reads the topic from its start up to a record that it writes now: how else
// could it know that it has read all, of a topic whose end may be compacted?
func (s *store) read(ctx context.Context, wanted []*lookup) error {
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if err := s.readTo(ctx, wanted); err != nil {
		return fmt.Errorf("the lists of who is behind can't be read of the topic %s (positions.topic; allow Read and Write on it): %w", s.topic, err)
	}
	return nil
}

func (s *store) readTo(ctx context.Context, wanted []*lookup) error {
	if err := s.ensure(ctx); err != nil {
		return err
	}
	sparing, err := kafka.Sparing(maxUnpacked)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{s.topic: {0: kgo.NewOffset().AtStart()}}),
		kgo.FetchMaxBytes(maxListFetch), kgo.FetchMaxPartitionBytes(maxListFetch), kgo.MaxConcurrentFetches(1), sparing,
		kgo.FetchMaxWait(time.Second), kgo.RequestTimeoutOverhead(requestTimeout), kgo.DialTimeout(requestTimeout),
		kgo.MetadataMinAge(500 * time.Millisecond),
	}, s.connect...)...)
	if err != nil {
		return err
	}
	defer client.Close()
	end := s.group + "/read/" + s.newName()
	if err := s.client.ProduceSync(ctx, &kgo.Record{Topic: s.topic, Partition: 0, Key: []byte(end)}).FirstErr(); err != nil {
		s.mu.Lock()
		s.ensured = false
		s.mu.Unlock()
		return err
	}
	for done := false; !done; {
		fetches := client.PollFetches(ctx)
		var failed error
		fetches.EachError(func(_ string, _ int32, err error) {
			if batch, tooLarge := errors.AsType[*kgo.ErrDecompressTooLarge](err); tooLarge {
				s.log.Warn("a batch of the positions topic is passed over: it takes more memory than one may", zap.String("topic", s.topic), zap.Int64("offset", batch.NextOffset-1))
				client.SetOffsets(map[string]map[int32]kgo.EpochOffset{batch.Topic: {batch.Partition: {Epoch: batch.Epoch, Offset: batch.NextOffset}}})
			} else if !kerr.IsRetriable(err) || ctx.Err() != nil {
				failed = err
			}
		})
		if failed != nil {
			return failed
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if string(r.Key) == end {
				done = true
			}
			if of, name, ok := s.parseKey(string(r.Key)); ok && len(r.Value) <= maxList {
				for _, w := range wanted {
					if w.of == of {
						w.take(name, r.Value)
					}
				}
			}
		})
	}
	return nil
}

// take takes a record in: the newest of a name counts, and one without a value is a
// deletion.
func (l *lookup) take(name string, value []byte) {
	if value != nil {
		value = append([]byte{}, value...) // the record's would keep its fetch
	}
	switch {
	case name == l.name:
		l.named = value
	case name == lastName:
		l.last = value
	case value == nil:
		delete(l.others, name)
	case len(l.others) < maxOthers && validName(name):
		if l.others == nil {
			l.others = make(map[string]bool)
		}
		l.others[name] = true
	}
}
