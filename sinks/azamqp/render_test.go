package azamqp

import (
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// What is rendered is what is sent: the message of Set, its properties by value.
func TestRender(t *testing.T) {
	chunk := &event.Chunk{Topic: "twins", Partition: 3}
	ev := &event.Event{
		Chunk: chunk, Record: &event.Record{Offset: 7, Headers: []event.Header{{Key: "traceparent", Value: []byte("00-a")}}}, Index: event.NoIndex,
		Type: event.SensorChange, Body: []byte(`{"id":"a","data":{"b":1}}`), CorrelationID: "c",
	}
	device := &event.Event{
		Chunk: chunk, Record: &event.Record{Headers: []event.Header{{Key: "k", Value: []byte("\xff")}}}, Index: event.NoIndex,
		Type: event.DeviceMessage, Raw: true, Body: []byte("\x01"),
	}
	for name, tt := range map[string]struct {
		ev         *event.Event
		body       endpoints.Body
		text       string
		properties map[string]any
	}{
		"envelope": {ev, endpoints.BodyEnvelope, `{"id":"a","data":{"b":1}}`, map[string]any{
			"Type": "SensorChange", "ContentType": "application/json", "CorrelationId": "c", "Subject": nil, "traceparent": "00-a",
		}},
		"data": {ev, endpoints.BodyData, `{"b":1}`, map[string]any{"Type": "SensorChange", "Subject": nil}},
		"device": {device, endpoints.BodyEnvelope, "\x01", map[string]any{
			"Type": "DeviceMessage", "ContentType": "application/octet-stream",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			m := Render(endpoints.Endpoint{Body: tt.body}, tt.ev)
			if string(m.Body) != tt.text || m.ID != string(tt.ev.MessageID(nil)) || m.ContentType != m.Properties["ContentType"] {
				t.Errorf("%+v", m)
			}
			for name, want := range tt.properties {
				if got, there := m.Properties[name]; !there || got != want {
					t.Errorf("%s is %v, want %v", name, got, want)
				}
			}
			var sent Message
			sent.Set(tt.ev, tt.body)
			if len(sent.Properties) != len(m.Properties) {
				t.Errorf("%d properties, %d are sent", len(m.Properties), len(sent.Properties))
			}
		})
	}
}
