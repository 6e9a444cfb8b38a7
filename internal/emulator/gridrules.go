package emulator

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"time"

	"twinegress/internal/jsonwalk"
)

// gridFields are the properties that an event may have, each with a bit.
var gridFields = map[string]int{
	"id": 1, "subject": 2, "eventType": 4, "eventTime": 8, "dataVersion": 16,
	"data": 32, "metadataVersion": 64, "topic": 128,
}

// gridField returns the bit of a property. It ignores the key's case.
func gridField(key []byte) (bit int, ok bool) {
	if bit, ok = gridFields[string(key)]; ok { // usually, and without an allocation
		return bit, true
	}
	for field, bit := range gridFields {
		if jsonwalk.KeyIs(key, field) {
			return bit, true
		}
	}
	return 0, false
}

const gridRequired = 1 | 2 | 4 | 8 | 16

// storeEvents checks a request's events against the Event Grid schema and stores all or
// none.
func (g *gridTopic) storeEvents(f *Fault, body []byte) (err error) {
	if err = jsonwalk.Validate(body); err != nil {
		return err
	}
	if jsonwalk.Trim(body)[0] != '[' {
		return errors.New("the body is not an array")
	}
	type span struct{ start, end int }
	var events []span
	jsonwalk.Walk(body, 0, func(m jsonwalk.Member) (end int) {
		if end, err = checkGridEvent(body, m.Start); err != nil {
			err = fmt.Errorf("event %d: %w", len(events), err)
			return len(body)
		}
		events = append(events, span{m.Start, end})
		return end
	})
	if err != nil {
		return err
	}
	if f != nil && f.Poison != "" && bytes.Contains(body, []byte(f.Poison)) {
		return errors.New(cmp.Or(f.Description, "An event of the batch is not valid."))
	}
	g.entity.mu.Lock()
	defer g.entity.mu.Unlock()
	p, now := &g.partitions[0], time.Now()
	for _, e := range events {
		if g.arrived != nil {
			g.arrived(g.name, 0, body[e.start:e.end])
		}
		if g.keep > 0 { // without a copy: no other request uses body
			g.remember(recorded{sequence: p.count, received: now, encoded: body[e.start:e.end:e.end]})
		}
		p.count++
		p.bytes += int64(e.end - e.start)
	}
	p.batches++
	return nil
}

// checkGridEvent checks the event at body[start:] and returns the index after it.
func checkGridEvent(body []byte, start int) (end int, err error) {
	if body[start] != '{' {
		return 0, errors.New("not an object")
	}
	seen := 0
	end = jsonwalk.Walk(body, start, func(m jsonwalk.Member) (end int) {
		key := body[m.KeyStart:m.KeyEnd]
		bit, known := gridField(key)
		if !known {
			err = fmt.Errorf("the property '%s' is not part of the EventGridEvent schema", key)
			return len(body)
		}
		seen |= bit
		end = jsonwalk.SkipValue(body, m.Start)
		if err = checkGridField(bit, key, body[m.Start:end]); err != nil {
			return len(body)
		}
		return end
	})
	if err != nil {
		return 0, err
	}
	if missing := gridRequired &^ seen; missing != 0 {
		for name, bit := range gridFields {
			if missing&bit != 0 {
				return 0, fmt.Errorf("the required property '%s' is missing", name)
			}
		}
	}
	return end, nil
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
	_, err := time.Parse("2006-01-02T15:04:05.999999999", s) // some devices omit the zone
	return err == nil
}
