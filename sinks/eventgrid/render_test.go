package eventgrid

import (
	"bytes"
	"testing"

	"twinegress/endpoints"
	"twinegress/internal/event"
)

// What is rendered is what is sent, and one that can't be sent isn't copied.
func TestRender(t *testing.T) {
	ev := &event.Event{Body: []byte(`{"id":"a","topic":"t","metadataVersion":"1"}`)}
	body, _ := build(nil, []*event.Event{ev})
	if m := Render(endpoints.Endpoint{}, ev); "["+string(m.Body)+"]" != string(body) || m.ID != "" {
		t.Errorf("%s, and what is sent is %s", m.Body, body)
	}
	for size, same := range map[int]bool{maxPooled: false, maxPooled + 1: true} {
		ev := &event.Event{Body: bytes.Repeat([]byte(" "), size)}
		copy(ev.Body, `{}`)
		if m := Render(endpoints.Endpoint{}, ev); (&m.Body[0] == &ev.Body[0]) != same {
			t.Errorf("%d bytes are copied: %t", size, same)
		}
	}
}
