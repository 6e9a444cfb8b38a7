package replay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/pipeline/letters"
	"twinegress/sinks/deadletter"
	"twinegress/stages/ingest"
)

// Earlier is a replay that has done something of a selection before. What its group
// has committed tells what: these letters were delivered, refused again or skipped.
type Earlier struct {
	Group     string
	Selection letters.Selection
	At        time.Time // when it last ended; zero: not known, since it was killed

	done map[int32]Span // of the dead-letter topic, by partition
}

// Span is a part of a partition, from one offset to before another.
type Span struct{ from, end int64 }

func (e *Earlier) has(partition int32, offset int64, l *deadletter.Letter) bool {
	of := e.done[partition]
	return offset >= of.from && offset < of.end && e.Selection.Has(l)
}

// EarlierResult is how many letters of a selection an earlier replay is done with.
type EarlierResult struct {
	Group    string    `json:"group"`
	Endpoint string    `json:"endpoint,omitempty"`
	Reasons  []string  `json:"reasons,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Until    time.Time `json:"until,omitzero"`
	At       time.Time `json:"at,omitzero"` // when it ended; absent: not known
	Letters  int64     `json:"letters"`
}

// earlier is called with r.mu held.
func (r *Replay) earlier() (of []EarlierResult) {
	for i, e := range r.Earlier {
		if n := r.before[i]; n > 0 {
			s := e.Selection
			of = append(of, EarlierResult{e.Group, s.Endpoint, s.Reasons, s.Since, s.Until, e.At, n})
		}
	}
	return of
}

// maxEarlier is how many groups are asked for what they have committed.
const maxEarlier = 1000

// FindEarlier returns the replays that may be done with letters of a selection,
// the one of the selection itself included. Brokers keep a group's offsets for a week,
// by default: what was replayed before that is not known.
func FindEarlier(ctx context.Context, ingestGroup, topic string, selection letters.Selection, connect []kgo.Opt) ([]Earlier, error) {
	client, err := kgo.NewClient(connect...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	groups, err := admin.ListGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("asking Kafka for the groups of earlier replays: %w", err)
	}
	var found []Earlier
	for _, group := range groups.Groups() {
		s, _, ok := parseGroup(ingestGroup, group)
		if !ok || !overlap(s, selection) {
			continue
		}
		if len(found) == maxEarlier {
			return nil, fmt.Errorf("there are more than %d groups of earlier replays", maxEarlier)
		}
		e := Earlier{Group: group, Selection: s}
		if err := e.ask(ctx, admin, topic); err != nil {
			return nil, err
		}
		if len(e.done) > 0 {
			found = append(found, e)
		}
	}
	// The latest first: that is the one that is told to be done with a letter.
	slices.SortFunc(found, func(a, b Earlier) int { return b.At.Compare(a.At) })
	return found, nil
}

// ask asks the brokers what of a topic the group is done with.
func (e *Earlier) ask(ctx context.Context, admin *kadm.Client, topic string) error {
	committed, err := ingest.Committed(ctx, admin, e.Group)
	if err != nil || len(committed[topic]) == 0 {
		return err
	}
	starts, ends, err := letters.Extent(ctx, admin, e.Selection.Since, e.Selection.Until, topic)
	if err != nil {
		return err
	}
	e.done = make(map[int32]Span)
	for number, o := range committed[topic] {
		start, end := starts[topic][number], ends[topic][number]
		// A group that is past the end is of a topic that was there before this one.
		if e.Selection.Until.IsZero() && o.At > end.Offset || o.At <= start.Offset {
			continue
		}
		e.done[number] = Span{start.Offset, o.At}
		if at, ok := strings.CutPrefix(o.Metadata, signature); ok {
			if t, err := time.Parse(time.RFC3339, at); err == nil && t.After(e.At) {
				e.At = t
			}
		}
	}
	return nil
}

// signature is the beginning of what a replay that has ended leaves with its group's
// offsets: the brokers don't say when these were committed.
const signature = "replayed "

// sign leaves the time with the group's offsets. Without it the next replay only
// doesn't know when this one was.
func (b *Backlog) sign(ctx context.Context) {
	client, err := kgo.NewClient(b.connect...)
	if err != nil {
		return
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	committed, err := ingest.Committed(ctx, admin, b.group)
	if err == nil {
		signed := make(kadm.Offsets)
		committed.Each(func(o kadm.Offset) {
			o.Metadata = signature + time.Now().UTC().Format(time.RFC3339)
			signed.Add(o)
		})
		// Brokers refuse it while another process is in the group.
		_, err = admin.CommitOffsets(ctx, b.group, signed)
	}
	if err != nil {
		b.log.Debug("the group of the replay does not say when it ended", zap.Error(err))
	}
}
