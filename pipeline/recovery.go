package pipeline

import (
	"context"
	"errors"
	"sync"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/pipeline/catchup"
	"twinegress/sinks"
	"twinegress/stages"
)

// RecoveryOptions are what endpoints that fall behind need: who is behind is kept by
// Keeper, and read for by Reader. What of them is the pipeline's own it sets itself.
type RecoveryOptions struct {
	Keeper catchup.KeeperOptions
	Reader catchup.ReaderOptions
}

// recovery puts the two beside the shared reading. To the consumer it is both.
type recovery struct {
	*catchup.Keeper
	pipeline *Pipeline
	behind   *sinks.Behind
	options  RecoveryOptions

	mu     sync.Mutex
	reader *catchup.Reader // nil before the source is there
}

// newRecovery returns nil if no endpoint ever falls behind, as in tests.
func newRecovery(p *Pipeline, o *RecoveryOptions, behind *sinks.Behind) (*recovery, error) {
	r := &recovery{pipeline: p, behind: behind, options: *o}
	r.options.Keeper.Behind, r.options.Keeper.Sender = behind, p.router.sender
	var err error
	if r.Keeper, err = catchup.NewKeeper(r.options.Keeper); err != nil {
		return nil, err
	}
	return r, nil
}

// start makes the reader: once there is a source to read beside.
func (r *recovery) start() {
	o := r.options.Reader
	o.Behind, o.Source, o.Prepare = behindOf{r.behind}, r.pipeline.source, r.prepare
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reader = catchup.NewReader(o)
}

func (r *recovery) read() *catchup.Reader {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reader
}

// run reads, and keeps what no commit waits for, until ctx ends.
func (r *recovery) run(ctx context.Context) {
	var keeper sync.WaitGroup
	defer keeper.Wait()
	keeper.Go(func() { r.Keeper.Run(ctx) })
	r.read().Run(ctx)
}

// Revoked implements ingest.Positions.
func (r *recovery) Revoked(o *event.Ownership) {
	if reader := r.read(); reader != nil {
		reader.Drop(o)
	}
	r.Keeper.Revoked(o)
}

// Released implements ingest.Positions.
func (r *recovery) Released(o *event.Ownership) {
	if reader := r.read(); reader != nil {
		reader.Forget(o)
	}
	r.Keeper.Released(o)
}

// Preview returns what a seek would be about, of all partitions together.
func (p *Pipeline) Preview(ctx context.Context, to string) (catchup.Preview, error) {
	r := p.recovering()
	if r == nil {
		return catchup.Preview{}, errors.New("this copy is not connected to Kafka yet")
	}
	return r.Keeper.Preview(ctx, to)
}

// prepare is Pipeline.prepare of a chunk that is read for endpoints that are behind.
// What it can't decode has its dead letters from the shared reading. After a panic,
// which ends the pipeline, nothing is prepared.
func (r *recovery) prepare(c *event.Chunk, decoded bool) (prepared catchup.Prepared, ok bool) {
	p := r.pipeline
	routes := p.router.acquire()
	defer func() {
		if !ok {
			routes.users.Done()
		}
	}()
	defer p.rescue("preparing", c)
	if !decoded {
		stages.Decode(c, routes.table.Correlated(), p.options.Limits)
	}
	j := p.lookUp(c, routes.table)
	return catchup.Prepared{
		Run: func(s catchup.Sender) ([]*event.Event, bool) {
			slot, is := routes.slots()[s.(*sinks.Sender)]
			if !is {
				return nil, false
			}
			return j.fanout.Of(slot), true
		},
		Done: func() {
			j.reset()
			p.jobs.Put(j)
			routes.users.Done()
		},
	}, true
}

// inForce is called with a set of endpoints once every chunk that was looked up in
// the table before is dispatched.
func (r *recovery) inForce(set []endpoints.Endpoint) {
	if r != nil {
		r.Seeks(set)
	}
}

// behindOf is sinks.Behind, as the reader asks it.
type behindOf struct{ *sinks.Behind }

// Of returns the senders that have a position in a partition.
func (b behindOf) Of(o *event.Ownership) []catchup.Sender {
	senders := b.Behind.Of(o)
	of := make([]catchup.Sender, len(senders))
	for i, s := range senders {
		of[i] = s
	}
	return of
}
