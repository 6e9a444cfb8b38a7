package emulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// gridFields are the properties that an event may have, as bits of what was seen.
var gridFields = map[string]int{
	"id": 1, "subject": 2, "eventType": 4, "eventTime": 8, "dataVersion": 16,
	"data": 32, "metadataVersion": 64, "topic": 128,
}

// gridField finds a property by its key as written, or else whatever its case.
func gridField(key []byte) (bit int, ok bool) {
	if bit, ok = gridFields[string(key)]; ok { // the usual case, which allocates nothing
		return bit, true
	}
	name := string(key)
	if bytes.IndexByte(key, '\\') >= 0 {
		// Rare enough for the slow way. It can't fail: the scanner has checked it.
		_ = json.Unmarshal(append(append([]byte{'"'}, key...), '"'), &name)
	}
	for field, bit := range gridFields {
		if strings.EqualFold(field, name) {
			return bit, true
		}
	}
	return 0, false
}

const gridRequired = 1 | 2 | 4 | 8 | 16

// take checks a request's events by the Event Grid schema and stores all or none.
func (g *gridTopic) take(f *Fault, body []byte) (status int, err error) {
	type span struct{ from, to int }
	var events []span
	s := scanner{b: body}
	err = s.array(func() error {
		from := s.i
		if err := s.gridEvent(); err != nil {
			return fmt.Errorf("event %d: %w", len(events), err)
		}
		events = append(events, span{from, s.i})
		return nil
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return http.StatusBadRequest, err
	}
	if f != nil && f.Poison != "" && bytes.Contains(body, []byte(f.Poison)) {
		return http.StatusBadRequest, errors.New(or(f.Description, "An event of the batch is not valid."))
	}
	g.entity.mu.Lock()
	defer g.entity.mu.Unlock()
	p, now := &g.partitions[0], time.Now()
	for _, e := range events {
		if g.arrived != nil {
			g.arrived(g.name, 0, body[e.from:e.to])
		}
		if g.keep > 0 { // body is this request's own, so it needn't be copied
			g.remember(recorded{sequence: p.count, received: now, encoded: body[e.from:e.to:e.to]})
		}
		p.count++
		p.bytes += int64(e.to - e.from)
	}
	p.batches++
	return http.StatusOK, nil
}

// gridEvent reads one event.
func (s *scanner) gridEvent() error {
	seen := 0
	err := s.object(func(key []byte) error {
		bit, known := gridField(key)
		if !known {
			return fmt.Errorf("the property '%s' is not part of the EventGridEvent schema", key)
		}
		s.space()
		from := s.i
		if err := s.value(0); err != nil {
			return err
		}
		seen |= bit
		return checkGridField(bit, key, s.b[from:s.i])
	})
	if err != nil {
		return err
	}
	if missing := gridRequired &^ seen; missing != 0 {
		for name, bit := range gridFields {
			if missing&bit != 0 {
				return fmt.Errorf("the required property '%s' is missing", name)
			}
		}
	}
	return nil
}

func checkGridField(bit int, name, raw []byte) error {
	switch bit {
	case 1, 2, 4:
		if len(raw) <= 2 || raw[0] != '"' {
			return fmt.Errorf("the property '%s' must be a text that isn't empty", name)
		}
	case 8:
		if raw[0] != '"' || !isTime(string(raw[1:len(raw)-1])) {
			return fmt.Errorf("the property '%s' is no date and time", name)
		}
	case 16:
		if raw[0] != '"' {
			return fmt.Errorf("the property '%s' must be a text", name)
		}
	case 64:
		if string(raw) != `"1"` {
			return fmt.Errorf("the property '%s' must be absent or \"1\"", name)
		}
	case 128:
		return fmt.Errorf("the property '%s' must be absent or the topic's own resource id", name)
	}
	return nil
}

func isTime(s string) bool {
	if _, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return true
	}
	_, err := time.Parse("2006-01-02T15:04:05.999999999", s) // some devices leave the zone out
	return err == nil
}
