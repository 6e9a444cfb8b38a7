package letters

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/internal/untrusted"
	"twinegress/sinks/deadletter"
)

// Seen says how much was read for an answer.
type Seen struct {
	Read       int64  `json:"read" doc:"Records that were read"`
	Foreign    int64  `json:"foreign" doc:"Records among them that are no dead letters of twinegress"`
	Unreadable int64  `json:"unreadable" doc:"Offsets in batches that take more memory than ingest.limits.batchBytes"`
	Cut        string `json:"cut,omitempty" doc:"Why not all that was asked for was looked at"`
}

// List is some letters, the newest first.
type List struct {
	Letters []Letter `json:"letters"`
	More    bool     `json:"more" doc:"There may be older ones"`
	Seen
}

// MaxListed is how many letters an answer has at most.
const MaxListed = 1000

// backwards is how far List has read a partition, from its end to its beginning.
type backwards struct {
	Span            // what is not read
	step  int64     // how much is read next
	older time.Time // no unread letter is younger, about; the zero time: nothing is read
}

// List returns the newest letters of a selection. It reads each partition backwards,
// in steps, always the one whose unread letters may be the newest.
func (r *Reader) List(ctx context.Context, selection Selection, most int, b Bounds) (List, error) {
	most = min(most, MaxListed)
	list := List{Letters: []Letter{}}
	cut, s, err := r.within(ctx, b, selection.Since, selection.Until, func(ctx context.Context, s *session) (string, error) {
		unread := make([]backwards, 0, len(s.spans))
		for _, span := range s.spans {
			if span.From < span.End {
				unread = append(unread, backwards{Span: span, step: int64(most) + 1})
			}
		}
		for len(unread) > 0 {
			i := newest(unread)
			next := &unread[i]
			if len(list.Letters) >= most && !next.older.IsZero() && !next.older.After(list.Letters[most-1].StoredAt) {
				list.More = true
				return "", nil
			}
			step := next.step
			if b.Records > 0 {
				if step = min(step, b.Records-s.read); step <= 0 {
					return fmt.Sprintf("only %d records were read, the newest", s.read), nil
				}
			}
			part := Span{Partition: next.Partition, From: max(next.From, next.End-step), End: next.End}
			if err := s.list(ctx, part, &selection, &list, next); err != nil {
				return "", err
			}
			list.trim(most)
			next.End = part.From
			next.step = min(2*next.step, maxStep)
			if next.End <= next.From {
				unread = slices.Delete(unread, i, i+1)
			}
		}
		return "", nil
	})
	if err != nil {
		return List{}, err
	}
	list.Cut, list.Read, list.Unreadable = cut, s.read, s.unreadable
	list.More = list.More || cut != ""
	return list, nil
}

// maxStep is how many offsets are read at a time, backwards.
const maxStep = 10_000

// newest returns the index of the partition whose unread letters may be the newest.
func newest(unread []backwards) (i int) {
	for j := range unread {
		switch {
		case unread[j].older.IsZero():
			return j
		case unread[j].older.After(unread[i].older):
			i = j
		}
	}
	return i
}

func (s *session) list(ctx context.Context, part Span, selection *Selection, list *List, of *backwards) error {
	oldest := of.older
	first := true
	err := s.each(ctx, part, func(r *kgo.Record) bool {
		if first {
			first, oldest = false, r.Timestamp
		}
		l, ok := parse(r)
		switch {
		case !ok:
			list.Foreign++
		case selection.Has(&l):
			list.Letters = append(list.Letters, shown(r, &l))
		}
		return true
	})
	if oldest.IsZero() { // nothing was there: compacted, or unreadable
		oldest = time.Unix(0, 0)
	}
	of.older = oldest
	return err
}

// trim keeps the newest letters, and counts none twice.
func (l *List) trim(most int) {
	slices.SortStableFunc(l.Letters, func(a, b Letter) int {
		return cmp.Or(b.StoredAt.Compare(a.StoredAt), cmp.Compare(a.Partition, b.Partition), cmp.Compare(b.Offset, a.Offset))
	})
	if len(l.Letters) > most {
		l.Letters, l.More = l.Letters[:most], true
	}
}

// Count is how many letters there are, by reason and endpoint.
type Count struct {
	Groups  []Group `json:"groups" doc:"The largest first"`
	Letters int64   `json:"letters"`
	Other   int64   `json:"other,omitempty" doc:"Letters in none of the groups, of which there are too many"`
	Seen
}

// Group is the letters of one reason and endpoint.
type Group struct {
	Reason string `json:"reason"`
	Endpoint
	Letters int64     `json:"letters"`
	Bytes   int64     `json:"bytes" doc:"Of their values"`
	Oldest  time.Time `json:"oldest" doc:"When the first of them was stored"`
	Newest  time.Time `json:"newest"`

	named [2]string // as the letter did that Endpoint is from
}

// maxGroups bounds the groups of a Count: there can be as many as there are letters,
// since anybody who may write the topic can name any endpoint.
const maxGroups = 10_000

type groupKey struct{ reason, endpoint string }

// Count counts the letters of a selection. With a bound on records it looks at the
// newest of each partition.
func (r *Reader) Count(ctx context.Context, selection Selection, b Bounds) (Count, error) {
	count := Count{Groups: []Group{}}
	groups := make(map[groupKey]*Group)
	cut, s, err := r.within(ctx, b, selection.Since, selection.Until, func(ctx context.Context, s *session) (cut string, err error) {
		for _, span := range s.spans {
			if share := b.Records / int64(len(s.spans)); b.Records > 0 && span.End-span.From > share {
				span.From = span.End - share
				cut = fmt.Sprintf("only the newest %d records of each partition were read", share)
			}
			if err := s.each(ctx, span, func(r *kgo.Record) bool {
				if l, ok := parse(r); !ok {
					count.Foreign++
				} else if selection.Has(&l) {
					count.add(groups, r, &l)
				}
				return true
			}); err != nil {
				return "", err
			}
		}
		return cut, nil
	})
	if err != nil {
		return Count{}, err
	}
	for _, g := range groups {
		count.Groups = append(count.Groups, *g)
	}
	slices.SortFunc(count.Groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Letters, a.Letters), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.ID, b.ID))
	})
	count.Cut, count.Read, count.Unreadable = cut, s.read, s.unreadable
	return count, nil
}

func (c *Count) add(groups map[groupKey]*Group, r *kgo.Record, l *deadletter.Letter) {
	c.Letters++
	g := groups[groupKey{l.Reason, l.Endpoint}]
	if g == nil {
		if len(groups) == maxGroups || len(l.Reason) > maxWord || len(l.Endpoint) > maxWord {
			c.Other++
			return
		}
		g = &Group{Reason: untrusted.Text(l.Reason), Endpoint: endpointOf(l), Oldest: r.Timestamp.UTC(), Newest: r.Timestamp.UTC(), named: [2]string{l.Name, l.Target}}
		groups[groupKey{l.Reason, l.Endpoint}] = g
	}
	g.Letters++
	g.Bytes += int64(len(r.Value))
	if at := r.Timestamp.UTC(); at.Before(g.Oldest) {
		g.Oldest = at
	} else if at.After(g.Newest) {
		g.Newest = at
	}
	if named := [2]string{l.Name, l.Target}; l.Target != "" && named != g.named { // as the last of its letters names it
		g.Endpoint, g.named = endpointOf(l), named
	}
}

// Whole is a dead letter with what was set aside.
type Whole struct {
	Letter
	Content
}

// Content is a letter's record: the event as it came.
type Content struct {
	Key         string   `json:"key,omitempty"`
	Headers     []Header `json:"headers,omitempty" doc:"The source record's own"`
	Value       *string  `json:"value,omitempty" doc:"The event as it came; absent: it is no UTF-8, or there is none"`
	ValueBase64 string   `json:"valueBase64,omitempty" doc:"The event where it is no UTF-8"`
	ValueCut    bool     `json:"valueCut,omitempty" doc:"There is more of the value than is shown"`

	Raw []byte `json:"-"`
}

// Header is one of a record.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// ErrNone is the error of a place that has no dead letter.
var ErrNone = errors.New("there is no dead letter")

// maxHeaders is how many of a record's own headers are shown.
const maxHeaders = 100

// Show returns the letter at an offset of the dead-letter topic, with up to most
// bytes of its value.
func (r *Reader) Show(ctx context.Context, partition int32, offset int64, most int, b Bounds) (*Whole, error) {
	var found *Whole
	cut, _, err := r.within(ctx, b, time.Time{}, time.Time{}, func(ctx context.Context, s *session) (string, error) {
		i := slices.IndexFunc(s.spans, func(s Span) bool { return s.Partition == partition })
		if i < 0 {
			return "", fmt.Errorf("%w: %s has no partition %d", ErrNone, r.Topic, partition)
		}
		if of := s.spans[i]; offset < of.From || offset >= of.End {
			return "", fmt.Errorf("%w: partition %d of %s has the offsets from %d to before %d", ErrNone, partition, r.Topic, of.From, of.End)
		}
		err := s.each(ctx, Span{Partition: partition, From: offset, End: offset + 1}, func(r *kgo.Record) bool {
			if l, ok := parse(r); ok {
				found = &Whole{shown(r, &l), content(r, &l, most)}
			}
			return false
		})
		if err == nil && found == nil {
			err = fmt.Errorf("%w at offset %d of partition %d of %s: what is there is no letter of twinegress, or can't be read", ErrNone, offset, partition, r.Topic)
		}
		return "", err
	})
	if err == nil && cut != "" {
		err = errors.New("the brokers are slow: " + cut)
	}
	return found, err
}

// Find returns the places of the letters of one origin that were stored last: those
// of several endpoints, mostly. index is nil for any.
func (r *Reader) Find(ctx context.Context, topic string, partition int32, offset int64, index *int32) ([]Letter, error) {
	var found []Letter
	_, _, err := r.within(ctx, Bounds{}, time.Time{}, time.Time{}, func(ctx context.Context, s *session) (string, error) {
		for _, span := range s.spans {
			if err := s.each(ctx, span, func(r *kgo.Record) bool {
				l, ok := parse(r)
				if ok && l.Topic == topic && l.Partition == partition && l.Offset == offset && (index == nil || *index == l.Index) && len(found) < MaxListed {
					found = append(found, shown(r, &l))
				}
				return true
			}); err != nil {
				return "", err
			}
		}
		return "", nil
	})
	return found, err
}

func content(r *kgo.Record, l *deadletter.Letter, most int) Content {
	c := Content{Key: untrusted.Text(string(r.Key)), Raw: r.Value}
	for _, h := range l.Own[:min(len(l.Own), maxHeaders)] {
		c.Headers = append(c.Headers, Header{untrusted.Short(h.Key, maxText), untrusted.Text(string(h.Value))})
	}
	value := r.Value
	if len(value) > most {
		value, c.ValueCut = value[:most], true
		for n := 1; n < utf8.UTFMax && n <= len(value) && !utf8.Valid(value); n++ { // not half a character
			if cut := value[:len(value)-n]; utf8.Valid(cut) {
				value = cut
			}
		}
	}
	switch {
	case value == nil:
	case utf8.Valid(value):
		text := string(value)
		c.Value = &text
	default:
		c.ValueBase64 = base64.StdEncoding.EncodeToString(value)
	}
	return c
}

// Each calls f with all records that were stored since one time and until another,
// in order of each partition. It returns how many offsets could not be read.
func (r *Reader) Each(ctx context.Context, since, until time.Time, f func(*kgo.Record)) (unreadable int64, err error) {
	s, err := r.open(ctx, since, until)
	if err != nil {
		return 0, err
	}
	defer s.close()
	for _, span := range s.spans {
		if err := s.each(ctx, span, func(r *kgo.Record) bool {
			f(r)
			return true
		}); err != nil {
			return s.unreadable, err
		}
	}
	return s.unreadable, nil
}
