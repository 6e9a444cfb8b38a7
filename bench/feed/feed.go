// Package feed generates the events of the Digital Twins graph of an office
// building: sensors with plausible values, rooms whose state is computed from
// their sensors, devices, and changes of the graph itself, each event in its
// documented shape. [Produce] produces them to a Kafka topic.
//
// It shares two cores with the program that reads them, so it builds an event by
// appending bytes, in about a microsecond.
package feed

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// The share of each event type, in percent; the rest is TopologyOperation.
const (
	percentSensorChange  = 70
	percentDeviceMessage = 12
	percentSpaceChange   = 8
	percentUdfCustom     = 6
	// Of the DeviceMessages, those that are an envelope and not the device's own bytes.
	percentEnvelopes = 10
)

// Record is the Kafka record of one event. Key is the id of the event's twin, so
// that all events of one twin share a partition. The caller may keep the bytes;
// Key may be shared and is read-only.
type Record struct {
	Key, Value []byte
	Headers    []kgo.RecordHeader
}

// Feed generates events: the same ones for the same seed and times. It is not safe
// for concurrent use.
type Feed struct {
	rng      *rand.Rand
	building *building
	room     *room  // whose sensor changed last: the room of the next SpaceChange
	computed *room  // the last SpaceChange's: the room of the next UdfCustom
	reason   []byte // the last SpaceChange's correlation id

	topology topology
}

// New returns a feed.
func New(seed uint64) *Feed {
	rng := rand.New(rand.NewPCG(seed, 0x7477696e))
	f := &Feed{rng: rng, building: newBuilding(rng)}
	f.room = &f.building.rooms[0]
	f.computed, f.reason = f.room, guid(nil, rng)
	return f
}

// Next returns the next event, with the time now.
func (f *Feed) Next(now time.Time) Record {
	now = now.UTC()
	switch p := f.rng.IntN(100); {
	case p < percentSensorChange:
		return f.sensorChange(now)
	case p < percentSensorChange+percentDeviceMessage:
		return f.deviceMessage(now)
	case p < percentSensorChange+percentDeviceMessage+percentSpaceChange:
		return f.spaceChange(now)
	case p < percentSensorChange+percentDeviceMessage+percentSpaceChange+percentUdfCustom:
		return f.udfCustom(now)
	default:
		return f.topologyOperation(now)
	}
}

// room for the longest event, so that its value is allocated once.
const valueSize = 640

func (f *Feed) sensorChange(now time.Time) Record {
	r := &f.building.rooms[f.rng.IntN(len(f.building.rooms))]
	s := &r.sensors[f.pickKind()]
	s.step(r.occupied(), f.rng)
	f.room = r

	v := sensorChange.fill(make([]byte, 0, valueSize), s.id, kinds[s.kind].dataType, s.id, s.value)
	if s.previous == nil {
		v = append(v, `null`...)
	} else {
		v = append(append(append(v, '"'), s.previous...), '"')
	}
	v = append(v, `,"EventTimestamp":"`...)
	v = appendTime(v, now.Add(-time.Duration(20+f.rng.IntN(400))*time.Millisecond))
	v = append(v, `","MessageType":"sensor","Properties":{"ms-client-request-id":"`...)
	v = guid(v, f.rng)
	v = append(v, `","ms-activity-id":"`...)
	v = appendActivity(v, f.rng)
	v = append(v, `"}}`...)
	return Record{Key: s.id, Value: appendTail(v, "SensorChange", "1", now)}
}

// pickKind picks the kind of sensor that changes, motion most often.
func (f *Feed) pickKind() kind {
	switch p := f.rng.IntN(10); {
	case p < 4:
		return motion
	case p < 7:
		return carbonDioxide
	case p < 9:
		return temperature
	default:
		return humidity
	}
}

// spaceChange returns the event of a user-defined function that computes the state
// of a room from its sensors.
func (f *Feed) spaceChange(now time.Time) Record {
	f.computed, f.reason = f.room, guid(make([]byte, 0, 36), f.rng)
	v := spaceChange.fill(make([]byte, 0, valueSize), f.reason, f.computed.id, f.computed.state(), f.reason)
	return Record{Key: f.computed.id, Value: appendTail(v, "SpaceChange", "1.0", now)}
}

// udfCustom returns the notification that the same function sends about it.
func (f *Feed) udfCustom(now time.Time) Record {
	r := f.computed
	v := udfCustom.fill(make([]byte, 0, valueSize), f.reason, r.id, r.name, r.state(), f.reason)
	return Record{Key: r.id, Value: appendTail(v, "UdfCustom", "1.0", now)}
}

// Header values that are the same in every message.
var (
	telemetryVersion = []byte("1.0")
	telemetrySource  = []byte("Telemetry")
)

// deviceMessage returns a device's own message: mostly its bytes as they are, with
// IoT Hub's properties in headers, and sometimes in an envelope.
func (f *Feed) deviceMessage(now time.Time) Record {
	r := &f.building.rooms[f.rng.IntN(len(f.building.rooms))]
	s := &r.sensors[f.rng.IntN(int(numKinds))]
	if f.rng.IntN(100) < percentEnvelopes {
		correlation := guid(make([]byte, 0, 36), f.rng)
		v := deviceMessage.fill(make([]byte, 0, valueSize), correlation, s.hardware, s.value, correlation)
		return Record{Key: r.device, Value: appendTail(v, "DeviceMessage", "1.0", now)}
	}
	v := telemetry.fill(make([]byte, 0, 32), s.value)
	return Record{Key: r.device, Value: v, Headers: []kgo.RecordHeader{
		{Key: "DigitalTwins-Telemetry", Value: telemetryVersion},
		{Key: "DigitalTwins-SensorHardwareId", Value: s.hardware},
		{Key: "CreationTimeUtc", Value: appendTime(make([]byte, 0, 28), now)},
		{Key: "x-ms-client-request-id", Value: guid(make([]byte, 0, 36), f.rng)},
		{Key: "iothub-connection-device-id", Value: r.device},
		{Key: "iothub-message-source", Value: telemetrySource},
	}}
}

// The events' bodies, up to what all of them end with.
var (
	sensorChange = newTemplate(`{"id":"@","subject":"SensorChange","data":{"Type":"Classic","DataType":"@","Id":"@","Value":"@","PreviousValue":`)
	spaceChange  = newTemplate(`{"id":"@","subject":"SpaceChange","data":{"Type":null,"DataType":"AvailableAndFresh","Id":"@","Value":"@",` +
		`"PreviousValue":null,"RawData":null,"transactionId":null,"EventTimestamp":null,"MessageType":null,"Properties":null,"CorrelationId":"@"}`)
	udfCustom = newTemplate(`{"id":"@","subject":"UdfCustom","data":{"TopologyObjectId":"@","ResourceType":"Space",` +
		`"Payload":"\"@: @\"","CorrelationId":"@"}`)
	deviceMessage     = newTemplate(`{"id":"@","subject":"@","data":{"SensorValue":"@","CorrelationId":"@"}`)
	telemetry         = newTemplate(`{"SensorValue":"@"}`)
	topologyOperation = newTemplate(`{"id":"@","subject":"@","data":{"SpacesToNotify":["@","@","@"],"Id":"@","Type":"@","AccessType":"@"}`)
)

// template is a text in pieces, between which values go. It is cut once: to
// look for the places in each record took an eighth of the record's time.
type template []string

func newTemplate(text string) template { return strings.Split(text, "@") }

// fill appends the template with the values in the place of its @s.
func (t template) fill(v []byte, values ...[]byte) []byte {
	for i, value := range values {
		v = append(append(v, t[i]...), value...)
	}
	return append(v, t[len(values)]...)
}

// appendTail appends the rest of an envelope after its data.
func appendTail(v []byte, eventType, dataVersion string, now time.Time) []byte {
	v = append(append(v, `,"eventType":"`...), eventType...)
	v = append(v, `","eventTime":"`...)
	v = appendTime(v, now)
	v = append(append(v, `","dataVersion":"`...), dataVersion...)
	return append(v, `","metadataVersion":"1","topic":"/subscriptions/YOUR_TOPIC_NAME"}`...)
}

// appendTime appends a time in UTC as .NET formats it, to 100 ns. A layout of its
// own takes three times as long as RFC 3339, and this is the feed's largest cost.
func appendTime(buf []byte, t time.Time) []byte {
	buf = t.AppendFormat(buf, time.RFC3339)
	end := len(buf) - 1 // of the seconds; behind it is the Z
	buf = strconv.AppendInt(buf[:end], int64(1e7+t.Nanosecond()/100), 10)
	buf[end] = '.' // was the 1 that keeps the zeros after it
	return append(buf, 'Z')
}

const base64Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

// appendActivity appends an activity id such as ct22YwXEGJ5u.605.0.
func appendActivity(buf []byte, rng *rand.Rand) []byte {
	bits := rng.Uint64()
	for range 10 {
		buf = append(buf, base64Digits[bits&63])
		bits >>= 6
	}
	buf = append(buf, 'Q', 'w', '.')
	buf = strconv.AppendInt(buf, int64(100+rng.IntN(900)), 10)
	return append(buf, '.', '0')
}
