package deadletter

import (
	"fmt"
	"strings"
	"testing"

	"twinegress/internal/event"
)

func headers(of ...string) (h []event.Header) {
	for i := 0; i < len(of); i += 2 {
		h = append(h, event.Header{Key: of[i], Value: []byte(of[i+1])})
	}
	return h
}

func TestParse(t *testing.T) {
	for name, tt := range map[string]struct {
		headers []event.Header
		want    string // as printed below, or a part of the error
	}{
		"an event": {
			headers("reason", "backoff", "detail", "d", "topic", "t", "partition", "3", "offset", "7", "endpoint", "e", "time", "now"),
			"backoff t/3/7/-1 e []",
		},
		"an array's": {
			headers("reason", "backoff", "topic", "t", "partition", "3", "offset", "7", "index", "0", "endpoint", "e", "time", "now"),
			"backoff t/3/7/0 e []",
		},
		"own headers with our names": {
			headers("reason", "backoff", "topic", "t", "partition", "3", "offset", "7", "endpoint", "e", "time", "now",
				"endpointName", "x", "time", "1", "index", "x", "endpoint", "f", "topic", "u"),
			"backoff t/3/7/-1 e [endpointName=x time=1 index=x endpoint=f topic=u]",
		},
		"an endpoint by its name": {
			headers("reason", "backoff", "topic", "t", "partition", "3", "offset", "7", "endpoint", "e", "endpointName", "hub", "endpointTarget", "EventHub h/p", "time", "now"),
			"backoff t/3/7/-1 e [] hub EventHub h/p",
		},
		"own endpoint of what has none": {
			headers("reason", "undecodable", "topic", "t", "partition", "3", "offset", "7", "time", "now", "endpoint", "f"),
			"undecodable t/3/7/-1  [endpoint=f]",
		},
		"none":                         {nil, "time is missing"},
		"not ours":                     {headers("time", "now", "topic", "t", "partition", "1", "offset", "1"), "not all there"},
		"cut short":                    {headers("topic", "t", "partition", "1", "offset", "1"), "time is missing"},
		"no topic":                     {headers("partition", "1", "offset", "1", "time", "now"), "not all there"},
		"no offset":                    {headers("topic", "t", "partition", "1", "time", "now"), "not all there"},
		"a bad partition":              {headers("topic", "t", "partition", "x", "offset", "1", "time", "now"), "header partition"},
		"a partition too far":          {headers("topic", "t", "partition", "2147483648", "offset", "1", "time", "now"), "header partition"},
		"a negative offset":            {headers("topic", "t", "partition", "1", "offset", "-1", "time", "now"), "header offset: negative"},
		"a bad number, however long":   {headers("topic", "t", "offset", strings.Repeat("9", 1<<20), "time", "now"), "header offset: not a number, or too large"},
		"a topic's name, however long": {headers("topic", strings.Repeat("t", 250), "partition", "1", "offset", "1", "time", "now"), "not all there"},
		"a bad index":                  {headers("topic", "t", "partition", "1", "offset", "1", "index", "", "time", "now"), "header index"},
	} {
		l, err := Parse(tt.headers)
		own := make([]string, 0, len(l.Own))
		for _, h := range l.Own {
			own = append(own, h.Key+"="+string(h.Value))
		}
		got := fmt.Sprintf("%s %s/%d/%d/%d %s %v", l.Reason, l.Topic, l.Partition, l.Offset, l.Index, l.Endpoint, own) + strings.TrimRight(" "+l.Name+" "+l.Target, " ")
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != tt.want || !strings.Contains(got, tt.want) || len(got) > 200 {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// What is cut is an event still where it is an element of an array, which is sent
// without its record's headers and key.
func TestWhole(t *testing.T) {
	for cut, want := range map[string][2]bool{
		"": {true, true}, "headers": {false, true}, "key,headers": {false, true},
		"value": {false, false}, "key,headers,value": {false, false},
	} {
		record, element := Letter{Cut: cut, Index: event.NoIndex}, Letter{Cut: cut, Index: 0}
		if got := [2]bool{record.Whole(), element.Whole()}; got != want {
			t.Errorf("cut %q: record and element are whole: %v, want %v", cut, got, want)
		}
	}
}
