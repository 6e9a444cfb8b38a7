package feed

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"twinegress/internal/event"
	"twinegress/stages"
)

// clock returns a clock that advances by a millisecond per call.
func clock() func() time.Time {
	now := time.Date(2026, 3, 4, 5, 6, 7, 123456700, time.UTC)
	return func() time.Time {
		now = now.Add(time.Millisecond)
		return now
	}
}

func decode(t *testing.T, r Record) event.Event {
	t.Helper()
	c := event.NewChunk("twins", 0, 1, 0, func(*event.Chunk) {})
	c.Add(0, 0, 0, r.Key, r.Value)
	for _, h := range r.Headers {
		c.AddHeader(h.Key, h.Value)
	}
	stages.Decode(c, true, stages.Limits{})
	if len(c.Rejected) > 0 {
		t.Fatalf("rejected: %s: %s\n%s", c.Rejected[0].Reason, c.Rejected[0].Detail, r.Value)
	}
	return c.Events[0]
}

// document is the documented shape, of all types.
type document struct {
	ID, Subject, EventType, EventTime, DataVersion, MetadataVersion, Topic string

	Data struct {
		ID, DataType, Value, CorrelationID, Payload, TopologyObjectID, Type, AccessType string

		PreviousValue  *string
		SpacesToNotify []string
	}
}

func TestEveryEventDecodesAndTheMixIsAsMeant(t *testing.T) {
	const n = 20_000
	f, now := New(1), clock()
	types := map[event.Type]int{}
	raw, sizes := 0, 0
	for range n {
		r := f.Next(now())
		ev := decode(t, r)
		types[ev.Type]++
		if ev.Raw {
			raw++
			continue
		}
		var d document
		if err := json.Unmarshal(r.Value, &d); err != nil {
			t.Fatalf("%v\n%s", err, r.Value)
		}
		if _, err := time.Parse(time.RFC3339Nano, d.EventTime); err != nil {
			t.Fatal(err)
		}
		if d.EventType != ev.Type.String() || d.ID == "" || d.Subject == "" || d.DataVersion == "" || d.MetadataVersion != "1" || d.Topic == "" {
			t.Fatalf("the envelope is incomplete: %s", r.Value)
		}
		if ev.Type == event.SensorChange {
			sizes += len(r.Value)
		}
	}
	want := map[event.Type]float64{
		event.SensorChange: .70, event.DeviceMessage: .12, event.SpaceChange: .08, event.UdfCustom: .06, event.TopologyOperation: .04,
	}
	for typ, share := range want {
		if got := float64(types[typ]) / n; got < share*.9 || got > share*1.1 {
			t.Errorf("%s is %.3f of all, want about %.2f", typ, got, share)
		}
	}
	if got := float64(raw) / float64(types[event.DeviceMessage]); got < .85 || got > .95 {
		t.Errorf("%.3f of the device messages are raw, want about .9", got)
	}
	if got := sizes / types[event.SensorChange]; got < 500 || got > 580 {
		t.Errorf("a SensorChange has %d bytes, want about 540", got)
	}
}

func TestPreviousValueIsTheSensorsLastValue(t *testing.T) {
	f, now := New(2), clock()
	last := map[string]string{}
	for range 15_000 {
		r := f.Next(now())
		var d document
		if decode(t, r).Type != event.SensorChange || json.Unmarshal(r.Value, &d) != nil {
			continue
		}
		if string(r.Key) != d.Data.ID || d.ID != d.Data.ID {
			t.Fatalf("key %s, id %s: want the sensor's id %s", r.Key, d.ID, d.Data.ID)
		}
		was, known := last[d.Data.ID]
		switch p := d.Data.PreviousValue; {
		case known && (p == nil || *p != was):
			t.Fatalf("sensor %s: PreviousValue %v after Value %q", d.ID, p, was)
		case !known && p != nil:
			t.Fatalf("sensor %s: PreviousValue %q in its first event", d.ID, *p)
		case known && d.Data.Value == was:
			t.Fatalf("sensor %s: %q is no change", d.ID, was)
		}
		last[d.Data.ID] = d.Data.Value
		plausible(t, d.Data.DataType, d.Data.Value)
	}
	if want := floors * roomsPerFloor * int(numKinds); len(last) != want {
		t.Errorf("%d sensors, want %d", len(last), want)
	}
}

func plausible(t *testing.T, dataType, value string) {
	t.Helper()
	bounds := map[string][2]float64{"Temperature": {16, 27}, "CarbonDioxide": {400, 1700}, "Humidity": {25, 65}}
	if b, ok := bounds[dataType]; ok {
		if v, err := strconv.ParseFloat(value, 64); err != nil || v < b[0] || v > b[1] {
			t.Fatalf("%s %s is not plausible (%v)", dataType, value, err)
		}
		return
	}
	if value != "True" && value != "False" {
		t.Fatalf("%s %q", dataType, value)
	}
}

// The state of a room must follow from its sensors' last values.
func TestSpaceChangeFollowsFromTheSensors(t *testing.T) {
	f, now := New(3), clock()
	roomOf := map[string]string{}
	for _, r := range f.building.rooms {
		for _, s := range r.sensors {
			roomOf[string(s.id)] = string(r.id)
		}
	}
	type known struct{ motion, air string }
	rooms, states, notified := map[string]*known{}, map[string]int{}, 0
	var reason, computed string
	for range 15_000 {
		var d document
		r := f.Next(now())
		if json.Unmarshal(r.Value, &d) != nil || d.Data.ID == "" && d.Data.TopologyObjectID == "" {
			continue
		}
		switch d.EventType {
		case "SensorChange":
			k := rooms[roomOf[d.Data.ID]]
			if k == nil {
				k = &known{}
				rooms[roomOf[d.Data.ID]] = k
			}
			switch d.Data.DataType {
			case "Motion":
				k.motion = d.Data.Value
			case "CarbonDioxide":
				k.air = d.Data.Value
			}
		case "SpaceChange":
			reason, computed = d.Data.CorrelationID, d.Data.ID
			states[d.Data.Value]++
			k := rooms[computed]
			if k == nil || k.motion == "" || k.air == "" {
				continue // not all sensors have a value yet
			}
			want := string(roomGood)
			if ppm, _ := strconv.Atoi(k.air); k.motion == "True" || ppm >= stale {
				want = string(roomBad)
			}
			if d.Data.Value != want {
				t.Fatalf("room %s is %q with motion %s and %s ppm", computed, d.Data.Value, k.motion, k.air)
			}
		case "UdfCustom":
			if reason == "" {
				continue
			}
			notified++
			var text string
			if err := json.Unmarshal([]byte(d.Data.Payload), &text); err != nil {
				t.Fatalf("the payload is no JSON: %v: %s", err, d.Data.Payload)
			}
			if d.Data.CorrelationID != reason || d.Data.TopologyObjectID != computed {
				t.Fatalf("a notification of %s for %s after a change of %s for %s", d.Data.TopologyObjectID, d.Data.CorrelationID, computed, reason)
			}
		}
	}
	if len(states) != 2 || notified == 0 {
		t.Errorf("states %v, %d notifications", states, notified)
	}
}

func TestTopologyIsCreatedBeforeItIsChangedAndGoneAfterItIsDeleted(t *testing.T) {
	documented := []string{
		"Device", "DeviceBlobMetadata", "DeviceExtendedProperty", "ExtendedPropertyKey", "ExtendedType", "KeyStore", "Report",
		"RoleDefinition", "Sensor", "SensorBlobMetadata", "SensorExtendedProperty", "Space", "SpaceBlobMetadata",
		"SpaceExtendedProperty", "SpaceResource", "SpaceRoleAssignment", "System", "User", "UserBlobMetadata", "UserExtendedProperty",
	}
	f, now := New(4), clock()
	live, access := map[string]bool{}, map[string]int{}
	for range 15_000 {
		var d document
		if r := f.Next(now()); json.Unmarshal(r.Value, &d) != nil || d.EventType != "TopologyOperation" {
			continue
		}
		if d.Data.Type != d.Subject || !slices.Contains(documented, d.Subject) || len(d.Data.SpacesToNotify) == 0 {
			t.Fatalf("%+v", d)
		}
		if (d.Data.AccessType == "Create") == live[d.Data.ID] {
			t.Fatalf("%s of %s, which is live: %t", d.Data.AccessType, d.Data.ID, live[d.Data.ID])
		}
		live[d.Data.ID] = d.Data.AccessType != "Delete"
		access[d.Data.AccessType]++
	}
	if got := slices.Sorted(maps.Keys(access)); !slices.Equal(got, []string{"Create", "Delete", "Update"}) {
		t.Errorf("operations: %v", access)
	}
}

func TestSameSeedSameEvents(t *testing.T) {
	take := func(seed uint64) (records []Record) {
		f, now := New(seed), clock()
		for range 5000 {
			records = append(records, f.Next(now()))
		}
		return records
	}
	first := take(5)
	if !reflect.DeepEqual(first, take(5)) {
		t.Error("two feeds of one seed differ")
	}
	if other := take(6); bytes.Equal(first[0].Value, other[0].Value) {
		t.Error("two seeds start with the same event")
	}
}

func TestAppendTime(t *testing.T) {
	for _, at := range []time.Time{
		time.Date(2018, 4, 17, 17, 46, 15, 496426200, time.UTC),
		time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		time.Date(999, 12, 31, 23, 59, 59, 999999999, time.UTC),
	} {
		if got, want := string(appendTime(nil, at)), at.Format("2006-01-02T15:04:05.0000000Z"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func BenchmarkNext(b *testing.B) {
	f, now, size := New(1), time.Now(), 0
	b.ReportAllocs()
	for b.Loop() {
		size += len(f.Next(now).Value)
	}
	b.SetBytes(int64(size / b.N))
}
