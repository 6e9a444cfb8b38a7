package catchup

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/stages/ingest"
)

// Sender is what the reader needs of an endpoint's sender; tests have others.
type Sender interface {
	Endpoint() endpoints.Endpoint
	// Next returns the offset from which it is to be given events, and whether it can
	// take some now.
	Next(o *event.Ownership, now time.Time) (offset int64, ready bool)
	// RetryAt returns when its back-off ends; zero: it doesn't.
	RetryAt() time.Time
	// Give gives it events of a chunk that was read for positions: those of it that are
	// for the endpoint, from its next offset on, which is in the chunk. From then on its
	// next offset is next. It holds the chunk while its events have no outcome.
	Give(o *event.Ownership, lane int, from *event.Chunk, run []*event.Event, next int64) (taken bool)
	// Join has it join the shared stream if it has been given what is dispatched there.
	Join(o *event.Ownership) (joined bool)
	// Skip moves it to an offset, since Kafka doesn't have those before any more.
	Skip(o *event.Ownership, to int64) (offsets int64)
	// Seek moves it to an offset, whichever its own is.
	Seek(o *event.Ownership, to, resume int64)
}

// Behind is who is behind, and where.
type Behind interface {
	Owned() []*event.Ownership
	Of(o *event.Ownership) []Sender
	Changed() <-chan struct{}
}

// Source is what the reader needs of the consumer, which reads beside it.
type Source interface {
	TakeLane(o *event.Ownership) (lane int, ok bool)
	ReturnLane(o *event.Ownership)
	Acquire(bytes int64)
	Return(bytes int64)
	Full() bool
	Status() ingest.Status
}

// Prepared is a chunk that is decoded and looked up.
type Prepared struct {
	// Run returns the chunk's events for a sender, in order; known is false for one that
	// is not in the table.
	Run func(Sender) (run []*event.Event, known bool)
	// Done ends the use of what Run returned.
	Done func()
}

// ReaderOptions are a reader's parts.
type ReaderOptions struct {
	Connect     []kgo.Opt // how the brokers are found
	BatchBytes  int64     // ingest.limits.batchBytes
	MaxInFlight int64     // ingest.maxInFlightBytes
	Behind      Behind
	Source      Source
	// Prepare decodes a chunk, unless that is done, and looks it up in the route table of
	// this moment; false: nothing may be given now. It is called from several goroutines.
	Prepare func(c *event.Chunk, decoded bool) (Prepared, bool)
	Log     *zap.Logger
}
