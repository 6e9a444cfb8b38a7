package azamqp

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/Azure/go-amqp"
	"go.uber.org/goleak"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newEvent(value []byte, headers ...event.Header) *event.Event {
	c := event.NewChunk("twins", 3, 1, 0, func(*event.Chunk) {})
	c.Add(41, 0, 0, nil, value)
	for _, h := range headers {
		c.AddHeader(h.Key, h.Value)
	}
	r := &c.Records[0]
	return &event.Event{Chunk: c, Record: r, Index: event.NoIndex, Type: event.SensorChange, Body: r.Value}
}

func header(key, value string) event.Header { return event.Header{Key: key, Value: []byte(value)} }

func TestMessageOfEvent(t *testing.T) {
	tests := map[string]struct {
		doc     string
		body    endpoints.Body
		headers []event.Header
		subject string
		corr    string
		want    string
		props   map[string]any // beyond Type and ContentType
	}{
		"envelope":             {doc: `{"data":{"a":1}}`, subject: "s", corr: "c", want: `{"data":{"a":1}}`, props: map[string]any{"Subject": "s", "CorrelationId": "c"}},
		"data":                 {doc: `{"data" : {"a":[1,"}"]} ,"x":1}`, body: endpoints.BodyData, want: `{"a":[1,"}"]}`, props: map[string]any{"Subject": nil, "CorrelationId": nil}},
		"data that is missing": {doc: `{"x":{"data":1}}`, body: endpoints.BodyData, want: `null`, props: map[string]any{"Subject": nil, "CorrelationId": nil}},
		"data, the last":       {doc: `{"data":1,"DATA":2}`, body: endpoints.BodyData, want: `2`, props: map[string]any{"Subject": nil, "CorrelationId": nil}},
		"traceparent": {
			doc: `{}`, want: `{}`, headers: []event.Header{header("traceparent", "00-old"), header("traceparent", "00-new"), header("other", "x")},
			props: map[string]any{"Subject": nil, "CorrelationId": nil, "traceparent": "00-new"},
		},
		"traceparent that isn't UTF-8": {doc: `{}`, want: `{}`, headers: []event.Header{header("traceparent", "\xff")}, props: map[string]any{"Subject": nil, "CorrelationId": nil}},
	}
	var m Message // one for all: nothing of an earlier event may stay
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ev := newEvent([]byte(test.doc), test.headers...)
			ev.Subject, ev.CorrelationID = test.subject, test.corr
			m.Set(ev, test.body)
			want := map[string]any{"Type": "SensorChange", "ContentType": "application/json"}
			maps.Copy(want, test.props)
			if string(m.Body) != test.want || m.ContentType != "application/json" || m.ID != "twins/3/41" {
				t.Errorf("body %s, content type %s, id %s", m.Body, m.ContentType, m.ID)
			}
			if got := values(m.Properties); !reflect.DeepEqual(got, want) {
				t.Errorf("properties are %v, want %v", got, want)
			}
		})
	}
}

// values follows pointers to strings, as AMQP's codec does.
func values(properties map[string]any) map[string]any {
	out := maps.Clone(properties)
	for key, v := range out {
		if s, ok := v.(*string); ok {
			out[key] = *s
		}
	}
	return out
}

func TestMessageOfDevice(t *testing.T) {
	const binary = "application/octet-stream"
	tests := map[string]struct {
		value       []byte
		headers     []event.Header
		contentType string
		props       map[string]any // beyond Type and ContentType
	}{
		"bytes":                            {value: []byte{0, 0xff, ' '}, contentType: binary},
		"nothing":                          {value: nil, contentType: binary},
		"empty":                            {value: []byte{}, contentType: binary},
		"headers":                          {value: []byte("v"), headers: []event.Header{header("a", "1"), header("b", "")}, contentType: binary, props: map[string]any{"a": "1", "b": ""}},
		"of equal names the last wins":     {value: []byte("v"), headers: []event.Header{header("a", "1"), header("a", "2")}, contentType: binary, props: map[string]any{"a": "2"}},
		"invalid UTF-8 travels as binary":  {value: []byte("v"), headers: []event.Header{header("a", "\xff")}, contentType: binary, props: map[string]any{"a": []byte("\xff")}},
		"content-type, in any case":        {value: []byte("v"), headers: []event.Header{header("Content-Type", "text/plain")}, contentType: "text/plain"},
		"content-type: the last":           {value: []byte("v"), headers: []event.Header{header("content-type", "a/b"), header("content-type", "c/d")}, contentType: "c/d"},
		"content-type that isn't UTF-8":    {value: []byte("v"), headers: []event.Header{header("content-type", "\xff")}, contentType: binary},
		"content-type that is empty":       {value: []byte("v"), headers: []event.Header{header("content-type", "")}, contentType: binary},
		"ours win over the device's":       {value: []byte("v"), headers: []event.Header{header("Type", "Spoof"), header("ContentType", "spoof")}, contentType: binary},
		"ours only in their exact writing": {value: []byte("v"), headers: []event.Header{header("type", "x")}, contentType: binary, props: map[string]any{"type": "x"}},
		"body: data changes nothing":       {value: []byte(`{"data":1}`), contentType: binary},
	}
	var m Message
	for name, test := range tests {
		for _, body := range []endpoints.Body{endpoints.BodyEnvelope, endpoints.BodyData} {
			t.Run(name+"/"+string(body), func(t *testing.T) {
				ev := newEvent(test.value, test.headers...)
				ev.Raw, ev.Type = true, event.DeviceMessage
				m.Set(ev, body)
				want := map[string]any{"Type": "DeviceMessage", "ContentType": test.contentType}
				maps.Copy(want, test.props)
				if !bytes.Equal(m.Body, test.value) || m.Body == nil || m.ContentType != test.contentType {
					t.Errorf("body %#v, content type %s", m.Body, m.ContentType)
				}
				if !reflect.DeepEqual(m.Properties, want) {
					t.Errorf("properties are %v, want %v", m.Properties, want)
				}
			})
		}
	}
}

// Whatever the headers of a record are, its message can be read by the service,
// and says itself what it is.
func FuzzMessage(f *testing.F) {
	f.Add("Type", []byte("other"), "ContentType", []byte("text/html"), []byte("body"), true)
	f.Add("content-type", []byte("text/plain"), "Content-Type", []byte("\xff"), []byte{}, true)
	f.Add("\xff", []byte("\xff"), "", []byte{}, []byte(`{"data":1}`), true)
	f.Add("traceparent", []byte("00-\xff"), "traceparent", []byte("00-a"), []byte(`{"data":1}`), false)
	f.Fuzz(func(t *testing.T, key1 string, value1 []byte, key2 string, value2, body []byte, raw bool) {
		ev := newEvent(body, event.Header{Key: key1, Value: value1}, event.Header{Key: key2, Value: value2})
		ev.Raw = raw
		if raw {
			ev.Type = event.DeviceMessage
		}
		var m Message
		m.Set(ev, endpoints.BodyEnvelope)
		sent := &amqp.Message{
			Properties:            &amqp.MessageProperties{MessageID: m.ID, ContentType: &m.ContentType},
			ApplicationProperties: m.Properties, Data: [][]byte{m.Body},
		}
		encoded, err := sent.MarshalBinary()
		if err != nil {
			t.Fatalf("it can't be encoded: %v", err)
		}
		var got amqp.Message
		if err := got.UnmarshalBinary(encoded); err != nil {
			t.Fatalf("it can't be decoded: %v", err)
		}
		if got.ApplicationProperties["Type"] != ev.Type.String() || got.ApplicationProperties["ContentType"] != *got.Properties.ContentType {
			t.Errorf("the properties are %v, the content type %q", got.ApplicationProperties, *got.Properties.ContentType)
		}
		if !utf8.ValidString(*got.Properties.ContentType) || !bytes.Equal(got.GetData(), body) {
			t.Errorf("content type %q, body %q", *got.Properties.ContentType, got.GetData())
		}
		for key, value := range got.ApplicationProperties {
			if s, is := value.(string); !utf8.ValidString(key) || is && !utf8.ValidString(s) {
				t.Errorf("property %q = %q", key, value)
			}
		}
	})
}

// Large messages are encoded one at a time, whosever they are; others are not held up.
func TestLargeAreEncodedOneAtATime(t *testing.T) {
	for name, test := range map[string]struct {
		bytes int
		alone bool
	}{
		"at the bound": {largeBody, false},
		"beyond it":    {largeBody + 1, true},
	} {
		alone := false
		n, err := new(Connections).Fill([]*event.Event{newEvent(make([]byte, test.bytes))}, endpoints.BodyEnvelope, errors.New("too large"), func(*Message) error {
			if alone = !large.TryLock(); !alone {
				large.Unlock()
			}
			return nil
		})
		if n != 1 || err != nil || alone != test.alone {
			t.Errorf("%s: Fill returns %d, %v; alone: %v, want %v", name, n, err, alone, test.alone)
		}
		if !large.TryLock() {
			t.Fatalf("%s: it is held afterwards", name)
		}
		large.Unlock()
	}
}

func TestClassify(t *testing.T) {
	condition := func(c amqp.ErrCond, text string) error { return &amqp.Error{Condition: c, Description: text} }
	tests := map[string]struct {
		err    error
		reason event.Reason
		wait   time.Duration
	}{
		"busy, as Event Hubs says it":  {condition("com.microsoft:server-busy", "The request was terminated because the entity is being throttled. Error code : 50002. Please wait 4 seconds and try again."), event.Throttled, 4 * time.Second},
		"busy, as Service Bus says it": {condition("com.microsoft:server-busy", "… 50009 … Please wait 2 second(s)"), event.Throttled, 2 * time.Second},
		"busy, without a time":         {condition("com.microsoft:server-busy", ""), event.Throttled, time.Minute},
		"busy, for a day":              {condition("com.microsoft:server-busy", "wait 86400 seconds"), event.Throttled, maxWait},
		"busy, for longer":             {condition("com.microsoft:server-busy", "wait 86401 seconds"), event.Throttled, maxWait},
		"busy, past time.Duration":     {condition("com.microsoft:server-busy", "wait 9223372037 seconds"), event.Throttled, maxWait},
		"busy, past 64 bits":           {condition("com.microsoft:server-busy", "wait 99999999999999999999 seconds"), event.Throttled, maxWait},
		"busy, for no time":            {condition("com.microsoft:server-busy", "wait 0 seconds"), event.Throttled, 0},
		"busy, for less than no time":  {condition("com.microsoft:server-busy", "wait -5 seconds"), event.Throttled, time.Minute},
		"decode error":                 {condition(amqp.ErrCondDecodeError, ""), event.Rejected, 0},
		"detached":                     {&amqp.LinkError{RemoteErr: &amqp.Error{Condition: amqp.ErrCondUnauthorizedAccess}}, event.Unauthorized, 0},
		"detached, not said why":       {&amqp.LinkError{}, event.Unreachable, 0},
		"closed":                       {&amqp.ConnError{RemoteErr: &amqp.Error{Condition: "amqp:connection:forced"}}, event.Unreachable, 0},
		"closed, not said why":         {&amqp.ConnError{}, event.Unreachable, 0},
		"wrapped":                      {fmt.Errorf("sending: %w", condition(amqp.ErrCondMessageSizeExceeded, "")), event.TooLarge, 0},
		"anything else":                {errors.New("?"), event.Unreachable, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			e := Classify(test.err, time.Minute)
			if e.Reason != test.reason || e.Wait != test.wait || !errors.Is(e, test.err) {
				t.Errorf("got %v, wait %v", e, e.Wait)
			}
		})
	}
}

func BenchmarkSet(b *testing.B) {
	doc := []byte(`{"id":"i","eventType":"SensorChange","subject":"s","data":{"value":"` + strings.Repeat("x", 400) + `"}}`)
	for _, body := range []endpoints.Body{endpoints.BodyEnvelope, endpoints.BodyData} {
		b.Run(string(body), func(b *testing.B) {
			ev := newEvent(doc)
			ev.Subject, ev.CorrelationID = "s", "i"
			var m Message
			b.ReportAllocs()
			for b.Loop() {
				m.Set(ev, body)
			}
		})
	}
}
