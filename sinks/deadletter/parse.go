package deadletter

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"twinegress/internal/event"
)

// Letter is what the headers of a stored dead letter contain.
type Letter struct {
	Reason    string
	Detail    string
	Topic     string
	Partition int32
	Offset    int64
	Index     int32  // of an array, or event.NoIndex
	Elements  string // of an array, where the letter is for many of them
	Endpoint  string // "" if it was set aside before it was routed
	Name      string // the endpoint's, when it was set aside; as its Target "" in older letters
	Target    string
	Time      string // when it was set aside
	Cut       string // what of the record is not all there: value, key, headers
	Own       []event.Header
}

// maxTopic is the length of the longest name that a topic may have.
const maxTopic = 249

// Parse reads a letter's headers. Those of ours come first and end with `time`;
// those behind it are the source record's own, and may have the same names.
// Anybody who may write the topic can have made them up.
func Parse(headers []event.Header) (Letter, error) {
	l := Letter{Offset: -1, Partition: -1, Index: event.NoIndex}
	for i, h := range headers {
		var err error
		switch h.Key {
		case "reason":
			l.Reason = string(h.Value)
		case "detail":
			l.Detail = string(h.Value)
		case "elements":
			l.Elements = string(h.Value)
		case "endpointName":
			l.Name = string(h.Value)
		case "endpointTarget":
			l.Target = string(h.Value)
		case "topic":
			l.Topic = string(h.Value)
		case "partition":
			l.Partition, err = number[int32](h.Value, 32)
		case "offset":
			l.Offset, err = number[int64](h.Value, 64)
		case "index":
			l.Index, err = number[int32](h.Value, 32)
		case "endpoint":
			l.Endpoint = string(h.Value)
		case "cut":
			l.Cut = string(h.Value)
		case "time":
			l.Time, l.Own = string(h.Value), headers[i+1:]
			if l.Topic == "" || len(l.Topic) > maxTopic || l.Partition < 0 || l.Offset < 0 {
				return Letter{}, errors.New("the headers topic, partition and offset are not all there")
			}
			return l, nil
		}
		if err != nil {
			return Letter{}, fmt.Errorf("header %s: %w", h.Key, err)
		}
	}
	return Letter{}, errors.New("the header time is missing")
}

// number has errors of its own: strconv's repeat what they are given.
func number[N int32 | int64](s []byte, bits int) (N, error) {
	n, err := strconv.ParseInt(string(s), 10, bits)
	switch {
	case err != nil:
		return 0, errors.New("not a number, or too large")
	case n < 0:
		return 0, errors.New("negative")
	}
	return N(n), nil
}

// Whole reports whether the letter has all that its event is sent with. Of an
// element of an array that is its bytes; a record that is an event by itself is
// sent with its headers, if it is a device's.
func (l *Letter) Whole() bool {
	return l.Cut == "" || l.Index != event.NoIndex && !strings.Contains(l.Cut, "value")
}
