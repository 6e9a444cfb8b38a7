package sinktest

import (
	"fmt"
	"strings"
)

// body is an event in the Event Grid schema that says where it came from.
func body(partition int32, offset int64, text string) []byte {
	return fmt.Appendf(nil, `{"id":"%d/%d","subject":"subject","eventType":"SensorChange","eventTime":"2026-01-02T03:04:05Z","dataVersion":"1.0","data":{"text":%q}}`,
		partition, offset, text)
}

// origin tells where the event came from whose body this is.
func origin(body []byte) (id eventID, ok bool) {
	_, rest, _ := strings.Cut(string(body[:min(len(body), 60)]), `"id":"`)
	_, err := fmt.Sscanf(rest, "%d/%d", &id.partition, &id.offset)
	return id, err == nil
}

// eventID is a place in Kafka.
type eventID struct {
	partition int32
	offset    int64
}
