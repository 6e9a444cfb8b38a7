package feed

import (
	"bytes"
	"time"
)

// topology changes the graph: objects are created, updated, and deleted again.
type topology struct {
	live []object // created and not deleted yet
}

type object struct {
	id      []byte
	subject []byte
	space   []byte // the room that it belongs to
	floor   []byte
}

// maxLive bounds the number of objects in the graph.
const maxLive = 256

// subjects are the documented subjects that change with people and devices,
// weighted by repetition.
var subjects = bytes.Fields([]byte(`
	Device Sensor Sensor Sensor SensorExtendedProperty DeviceExtendedProperty
	Space SpaceExtendedProperty SpaceBlobMetadata SpaceRoleAssignment
	User UserExtendedProperty ExtendedPropertyKey ExtendedType KeyStore`))

var create, update, remove = []byte("Create"), []byte("Update"), []byte("Delete")

func (f *Feed) topologyOperation(now time.Time) Record {
	t := &f.topology
	var o object
	var access []byte
	switch p := f.rng.IntN(100); {
	case len(t.live) == 0 || p < 40 && len(t.live) < maxLive:
		r := &f.building.rooms[f.rng.IntN(len(f.building.rooms))]
		o = object{
			id: guid(make([]byte, 0, 36), f.rng), subject: subjects[f.rng.IntN(len(subjects))],
			space: r.id, floor: f.building.floors[r.floor],
		}
		t.live = append(t.live, o)
		access = create
	case p < 65:
		o, access = t.live[f.rng.IntN(len(t.live))], update
	default:
		i := f.rng.IntN(len(t.live))
		o, access = t.live[i], remove
		t.live[i] = t.live[len(t.live)-1]
		t.live = t.live[:len(t.live)-1]
	}

	v := topologyOperation.fill(make([]byte, 0, valueSize),
		o.id, o.subject, o.space, o.floor, f.building.id, o.id, o.subject, access)
	return Record{Key: o.id, Value: appendTail(v, "TopologyOperation", "1", now)}
}
