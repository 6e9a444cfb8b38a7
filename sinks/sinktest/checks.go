package sinktest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"go.uber.org/zap/zapcore"

	"twinegress/internal/event"
	"twinegress/sinks"
)

// checkStored compares the messages in the service with the sender's counts.
func (e *env) checkStored(snap sinks.Snapshot) {
	copies := make(map[eventID]int)
	furthest := make(map[int32]int64) // by Kafka partition
	for _, m := range e.emulator.Messages(entity) {
		id, ok := idOf(m.Body)
		if _, sent := e.sent[id]; !ok || !sent {
			e.t.Errorf("a message that nobody sent: %.100s", m.Body)
			continue
		}
		if want := fmt.Sprint(id.partition % partitions); len(e.emulator.Stats().Entity(entity).Partitions) > 1 && m.Partition != want {
			e.t.Errorf("%v is in the hub's partition %s, want %s", id, m.Partition, want)
		}
		if want := fmt.Sprintf("twins/%d/%d", id.partition, id.offset); !e.service.isGrid() && m.MessageID != want {
			e.t.Errorf("%v has the message id %q", id, m.MessageID)
		}
		last, any := furthest[id.partition]
		switch copies[id]++; {
		case copies[id] == 1 && any && id.offset < last:
			e.t.Errorf("%v came after offset %d of its partition", id, last)
		case copies[id] > 1 && !e.test.repeats:
			e.t.Errorf("%v was stored %d times", id, copies[id])
		case copies[id] > 2*options.Attempts: // each try is two of the SDK's
			e.t.Errorf("%v was stored %d times, with %d tries", id, copies[id], options.Attempts)
		}
		furthest[id.partition] = max(last, id.offset)
	}
	delivered, total := int(snap.Counts.Delivered), len(copies)
	if total < delivered || total > delivered && !e.test.repeats {
		e.t.Errorf("%d events are stored, %d delivered", total, delivered)
	}
	if !e.keepDropped {
		return
	}
	// Every event that was dropped is a dead letter, and every other is stored.
	letters := e.letters.all()
	var reasons [event.NumReasons]uint64
	for _, l := range letters {
		reasons[l.reason]++
	}
	if reasons != snap.Counts.Dropped {
		e.t.Errorf("dead letters by reason %v, dropped %v", reasons, snap.Counts.Dropped)
	}
	for id, text := range e.sent {
		if _, dropped := letters[id]; !dropped && copies[id] == 0 {
			e.t.Errorf("%v (%.20s) was delivered, says the sender, but is not stored", id, text)
		}
	}
}

// inBase64 returns the middle of echo's form of a key: its ends depend on what is beside it.
func inBase64(key string) string {
	whole := base64.StdEncoding.EncodeToString([]byte("key:" + key))
	return whole[12 : len(whole)-8]
}

// checkSecrets searches all that somebody may read for a key.
func (e *env) checkSecrets(closing error) {
	texts := []string{fmt.Sprint(closing), fmt.Sprintf("%v %+v", e.Endpoint(), e.Endpoint())}
	e.mu.Lock()
	for text := range e.lastErrors {
		texts = append(texts, text)
	}
	e.mu.Unlock()
	for _, l := range e.letters.all() {
		texts = append(texts, l.detail)
	}
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{MessageKey: "msg"})
	for _, entry := range e.logs.All() {
		line, err := encoder.EncodeEntry(entry.Entry, entry.Context)
		if err != nil {
			e.t.Fatal(err)
		}
		texts = append(texts, line.String())
	}
	for _, key := range []string{keys.Primary, keys.Secondary, bearerToken} {
		inJSON, err := json.Marshal(key)
		if err != nil {
			e.t.Fatal(err)
		}
		forms := []string{key, url.QueryEscape(key), url.PathEscape(key), strings.Trim(string(inJSON), `"`), key[:12], inBase64(key), "SharedAccessSignature"}
		for _, text := range texts {
			if strings.ContainsRune(text, '\x1b') {
				e.t.Errorf("%q can steer a terminal", text)
			}
			for _, form := range forms {
				if strings.Contains(text, form) {
					e.t.Errorf("%q shows a key", text)
				}
			}
		}
	}
}
