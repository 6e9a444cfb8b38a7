package feed

import "time"

// topology changes the graph: objects are created, updated, and deleted again.
type topology struct {
	live []object // created and not deleted yet
}

type object struct {
	id      []byte
	subject string
	space   []byte // the room that it belongs to
	floor   []byte
}

// maxLive bounds the number of objects in the graph.
const maxLive = 256

// subjects are the documented subjects that change with people and devices,
// weighted by repetition.
var subjects = [...]string{
	"Device", "Sensor", "Sensor", "Sensor", "SensorExtendedProperty", "DeviceExtendedProperty",
	"Space", "SpaceExtendedProperty", "SpaceBlobMetadata", "SpaceRoleAssignment",
	"User", "UserExtendedProperty", "ExtendedPropertyKey", "ExtendedType", "KeyStore",
}

func (f *Feed) topologyOperation(now time.Time) Record {
	t := &f.topology
	var o object
	var access string
	switch p := f.rng.IntN(100); {
	case len(t.live) == 0 || p < 40 && len(t.live) < maxLive:
		r := &f.building.rooms[f.rng.IntN(len(f.building.rooms))]
		o = object{
			id: guid(make([]byte, 0, 36), f.rng), subject: subjects[f.rng.IntN(len(subjects))],
			space: r.id, floor: f.building.floors[r.floor],
		}
		t.live = append(t.live, o)
		access = "Create"
	case p < 65:
		o, access = t.live[f.rng.IntN(len(t.live))], "Update"
	default:
		i := f.rng.IntN(len(t.live))
		o, access = t.live[i], "Delete"
		t.live[i] = t.live[len(t.live)-1]
		t.live = t.live[:len(t.live)-1]
	}

	v := append(make([]byte, 0, valueSize), `{"id":"`...)
	v = append(v, o.id...)
	v = append(v, `","subject":"`...)
	v = append(v, o.subject...)
	v = append(v, `","data":{"SpacesToNotify":["`...)
	v = append(v, o.space...)
	v = append(v, `","`...)
	v = append(v, o.floor...)
	v = append(v, `","`...)
	v = append(v, f.building.id...)
	v = append(v, `"],"Id":"`...)
	v = append(v, o.id...)
	v = append(v, `","Type":"`...)
	v = append(v, o.subject...)
	v = append(v, `","AccessType":"`...)
	v = append(v, access...)
	v = append(v, `"}`...)
	return Record{Key: o.id, Value: appendTail(v, "TopologyOperation", "1", now)}
}
