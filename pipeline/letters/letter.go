package letters

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
	"twinegress/internal/event"
	"twinegress/internal/untrusted"
	"twinegress/sinks"
	"twinegress/sinks/deadletter"
)

// Selection says which letters are meant. An empty field selects all.
type Selection struct {
	Endpoint     string // an endpoint's id
	Reasons      []string
	Since, Until time.Time // when they were stored in the topic; Until itself is excluded
}

// Has reports whether a letter is selected by its headers.
func (s *Selection) Has(l *deadletter.Letter) bool {
	return (s.Endpoint == "" || s.Endpoint == l.Endpoint) && (len(s.Reasons) == 0 || slices.Contains(s.Reasons, l.Reason))
}

// Letter is a dead letter without what was set aside.
type Letter struct {
	Partition int32     `json:"partition" doc:"Where the letter is in the dead-letter topic"`
	Offset    int64     `json:"offset"`
	Time      string    `json:"time" doc:"When the event was set aside"`
	StoredAt  time.Time `json:"storedAt" doc:"When the letter was stored: later while the topic refused it"`
	Reason    string    `json:"reason"`
	Detail    string    `json:"detail" doc:"The service's words, or the decoder's"`
	Endpoint
	Source   Source `json:"source"`
	Elements string `json:"elements,omitempty" doc:"Of an array, where the letter is for many of them: 0-17,23"`
	Cut      string `json:"cut,omitempty" doc:"What of the record is not all there: value, key, headers"`
	Bytes    int    `json:"bytes" doc:"Of the value"`
}

// Endpoint names who a letter is for, as the letter does; who is configured now is
// named where an older letter has the id alone.
type Endpoint struct {
	ID     string `json:"endpoint,omitempty" doc:"The endpoint's id; absent where the event was set aside before it was routed"`
	Name   string `json:"endpointName,omitempty"`
	Target string `json:"endpointTarget,omitempty" doc:"The endpoint's type, host and path"`
}

// Source is the place in Kafka that an event came from.
type Source struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Index     *int32 `json:"index,omitempty" doc:"The element of the record's array"`
}

// What of a letter's headers is shown, in bytes: whoever may write the topic chooses
// their length.
const (
	maxWord = 64
	maxText = 300
)

// parse returns a record's letter, or false for a record that is none.
func parse(r *kgo.Record) (l deadletter.Letter, ok bool) {
	headers := make([]event.Header, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = event.Header{Key: h.Key, Value: h.Value}
	}
	l, err := deadletter.Parse(headers)
	return l, err == nil
}

// shown returns a letter as it is shown.
func shown(r *kgo.Record, l *deadletter.Letter) Letter {
	source := Source{Topic: untrusted.Short(l.Topic, maxText), Partition: l.Partition, Offset: l.Offset}
	if l.Index != event.NoIndex {
		source.Index = &l.Index
	}
	return Letter{
		Partition: r.Partition, Offset: r.Offset,
		Time: untrusted.Short(l.Time, maxWord), StoredAt: r.Timestamp.UTC(),
		Reason: untrusted.Short(l.Reason, maxWord), Detail: untrusted.Text(l.Detail),
		Endpoint: endpointOf(l), Source: source,
		Elements: untrusted.Text(l.Elements), Cut: untrusted.Short(l.Cut, maxWord), Bytes: len(r.Value),
	}
}

func endpointOf(l *deadletter.Letter) Endpoint {
	return Endpoint{untrusted.Short(l.Endpoint, maxWord), untrusted.Short(l.Name, maxText), untrusted.Short(l.Target, maxText)}
}

// Names are the configured endpoints, by id.
type Names map[string]*endpoints.Endpoint

// NamesOf returns the names of a set.
func NamesOf(set []endpoints.Endpoint) Names {
	n := make(Names, len(set))
	for i := range set {
		n[set[i].ID] = &set[i]
	}
	return n
}

// Complete names the endpoint where the letter has its id alone.
func (n Names) Complete(e *Endpoint) {
	known := n[e.ID]
	if known == nil || e.Target != "" {
		return
	}
	to := sinks.NewRecipient(*known)
	e.Name, e.Target = to.Name, to.Target
}
