package replay

import (
	"cmp"
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/event"
	"twinegress/pipeline/letters"
	"twinegress/sinks"
	"twinegress/sinks/deadletter"
)

// Preview is what a replay would do. Letters = Send + the sum of Skipped.
type Preview struct {
	Letters int64           `json:"letters"` // read
	Send    int64           `json:"send"`    // that would be sent
	Groups  []PreviewGroup  `json:"groups"`  // of these, the largest first
	Skipped Skipped         `json:"skipped"`
	Earlier []EarlierResult `json:"earlier,omitempty"`
}

// PreviewGroup is the letters of one endpoint and reason that would be sent.
type PreviewGroup struct {
	letters.Endpoint
	Reason  string `json:"reason"`
	Letters int64  `json:"letters"`
}

// previewRecords is how many records are looked at together, as of a chunk.
const previewRecords = 256

// Preview reads all letters of the selection's time, and counts what Run would do
// with each. It sends nothing, joins no group and commits nothing.
func (r *Replay) Preview(ctx context.Context, reader *letters.Reader) (Preview, error) {
	type key struct{ endpoint, reason string }
	counts := make(map[key]int64)
	var records []*kgo.Record
	bytes := 0
	flush := func() {
		if len(records) > 0 {
			r.preview(records, bytes, func(l *deadletter.Letter) {
				reason := l.Reason
				if !slices.Contains(event.Reasons(), reason) { // anybody who may write the topic can make up one a letter
					reason = "other"
				}
				counts[key{l.Endpoint, reason}]++
			})
		}
		records, bytes = records[:0], 0
	}
	unreadable, err := reader.Each(ctx, r.Selection.Since, r.Selection.Until, func(record *kgo.Record) {
		if len(records) > 0 && records[0].Partition != record.Partition || len(records) == previewRecords || bytes > previewBytes {
			flush()
		}
		records = append(records, record)
		bytes += len(record.Key) + len(record.Value)
	})
	if err != nil {
		return Preview{}, err
	}
	flush()
	r.mu.Lock()
	defer r.mu.Unlock()
	p := Preview{Letters: r.read + unreadable, Skipped: r.skipped, Earlier: r.earlier(), Groups: []PreviewGroup{}}
	p.Skipped.Unreadable += unreadable
	names := letters.NamesOf(r.Endpoints)
	for k, n := range counts {
		g := PreviewGroup{Endpoint: letters.Endpoint{ID: k.endpoint}, Reason: k.reason, Letters: n}
		names.Complete(&g.Endpoint)
		p.Groups = append(p.Groups, g)
		p.Send += n
	}
	slices.SortFunc(p.Groups, func(a, b PreviewGroup) int {
		return cmp.Or(cmp.Compare(b.Letters, a.Letters), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Reason, b.Reason))
	})
	return p, nil
}

// previewBytes is how many bytes are looked at together.
const previewBytes = 1 << 20

// preview counts records of one partition.
func (r *Replay) preview(records []*kgo.Record, bytes int, send func(*deadletter.Letter)) {
	c := event.NewChunk(records[0].Topic, records[0].Partition, len(records), bytes, (*event.Chunk).Free)
	for _, record := range records {
		c.Add(record.Offset, record.Timestamp.UnixMilli(), record.LeaderEpoch, record.Key, record.Value)
		for _, h := range record.Headers {
			c.AddHeader(h.Key, h.Value)
		}
	}
	runs, order, skipped, before := r.sort(c)
	for _, from := range order {
		run := runs[from]
		run.rebuild(from, c)
		r.route(run, &skipped, func(l *deadletter.Letter, _ *event.Event, _ []sinks.Slot) { send(l) })
		r.lookup.Reset()
		run.chunk.Settle(1)
	}
	r.count(int64(len(c.Records)), skipped, before)
	c.Settle(1)
}
