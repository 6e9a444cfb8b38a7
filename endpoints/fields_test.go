package endpoints

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// hub returns a valid endpoint. storetest's can't be used here, in the package that
// storetest imports.
func hub() Endpoint {
	return Endpoint{
		Name: "n", Type: TypeEventHub, EventTypes: []string{SensorChange}, Path: "hub",
		ConnectionString: "Endpoint=sb://ns/;SharedAccessKeyName=send;SharedAccessKey=a",
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// other returns e with another value in a field.
func other(t *testing.T, f field, e Endpoint) Endpoint {
	t.Helper()
	e = e.Clone()
	switch v := f.of(&e); {
	case f.kind == reflect.Pointer:
		v.Set(reflect.ValueOf(new(false)))
	case f.kind == reflect.String && f.allowed != nil:
		v.SetString(f.allowed[len(f.allowed)-1])
	case f.kind == reflect.String:
		v.SetString("another-value")
	case f.kind == reflect.Slice:
		e.EventTypes[0] = SpaceChange
	default:
		e.LastUpdated = time.Unix(1e9, 0).UTC()
	}
	return e
}

// Each field is compared, hashed, encoded, decoded and masked: none is forgotten.
func TestEveryField(t *testing.T) {
	base := hub().canonical()
	routing := []string{"name", "eventTypes", "overflow", "filter", "recovery", "enabled", "startAt", "seekTo", "seekAt"} // and anything else needs a new connection
	asIs := func(s, _ string) (string, error) { return s, nil }
	for _, f := range fields {
		t.Run(f.name, func(t *testing.T) {
			e := other(t, f, base)
			if c := e.Clone(); !reflect.DeepEqual(c, e) || c.Enabled == e.Enabled || &c.EventTypes[0] == &e.EventTypes[0] {
				t.Errorf("a clone differs, or shares something: %#v", Document(c))
			}
			same := f.name == "lastUpdatedUtc"
			changes := Diff(base, e)
			if want := []string{f.name}; same != (len(changes.Fields) == 0) || !same && !slices.Equal(changes.Fields, want) {
				t.Errorf("Diff names %q", changes.Fields)
			}
			if want := !same && !slices.Contains(routing, f.name); changes.Reconnect != want {
				t.Errorf("Diff: Reconnect is %t, want %t", changes.Reconnect, want)
			}
			if base.Equal(e) != same || e.Equal(base) != same || (base.ETag() == e.ETag()) != same {
				t.Errorf("Equal is %t, the ETag the same %t, want %t", base.Equal(e), base.ETag() == e.ETag(), same)
			}

			// Out and in again, as each store does it.
			text, err := Encode(e, asIs)
			must(t, err)
			read, v := decodeStored(text, asIs)
			if read = read.canonical(); len(v) > 0 || !reflect.DeepEqual(read, e) {
				t.Errorf("a record is read as %#v, %v: %s", read, v, text)
			}
			text, err = EncodeSet([]Endpoint{e}, asIs)
			must(t, err)
			var raw []json.RawMessage
			must(t, json.Unmarshal(text, &raw))
			read, v = decodeStored(raw[0], nil)
			if read = read.canonical(); len(v) > 0 || !reflect.DeepEqual(read, e) {
				t.Errorf("the file is read as %#v, %v: %s", read, v, text)
			}
			if f.absent != "" && strings.Contains(string(text), f.absent) {
				t.Errorf("the file spells a default out: %s", text)
			}

			// A body: what is the store's is ignored.
			text, err = json.Marshal(Document(e))
			must(t, err)
			want := e
			for _, f := range fields {
				if f.readOnly {
					f.of(&want).SetZero()
				}
			}
			read, v = decodeObject(text, false)
			if read = read.canonical(); len(v) > 0 || !reflect.DeepEqual(read, want) {
				t.Errorf("a body is read as %#v, %v: %s", read, v, text)
			}

			// Each secret is masked where an endpoint shows, and sealed where it is stored.
			if f.kind != reflect.String {
				return
			}
			*f.of(&e).Addr().Convert(reflect.TypeFor[*string]()).Interface().(*string) = "SECRET"
			shown, err := json.Marshal(e)
			must(t, err)
			stored, err := Encode(e, func(string, string) (string, error) { return "sealed", nil })
			must(t, err)
			if open := strings.Contains(string(shown), `"SECRET"`); open == f.secret || open != strings.Contains(string(stored), `"SECRET"`) {
				t.Errorf("shown as %s\nstored as %s", shown, stored)
			}
		})
	}
	// The tag can't be missing on these.
	for _, name := range []string{"connectionString", "secondaryConnectionString"} {
		if !fieldNamed(name).secret {
			t.Errorf("%s is no secret", name)
		}
	}
}

// An enumeration takes its values whatever their case, and no other.
func TestEveryEnum(t *testing.T) {
	for _, f := range texts {
		if f.allowed == nil {
			continue
		}
		for _, value := range f.allowed {
			e := hub()
			f.of(&e).SetString(" " + strings.ToUpper(value))
			if got := e.canonical(); f.of(&got).String() != value {
				t.Errorf("%s: %s is canonical", f.name, f.of(&got))
			}
		}
		e := hub()
		f.of(&e).SetString("")
		if got := e.canonical(); f.of(&got).String() != f.absent || f.name != "type" && f.absent != f.allowed[0] {
			t.Errorf("%s: no value means %q, by default %q", f.name, f.of(&got), f.absent)
		}
		f.of(&e).SetString("none of it")
		want := f.name + `: unknown value "none of it"; allowed are ` + strings.Join(f.allowed, ", ")
		if got := e.canonical().violations(Options{}).Error(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	var types []string
	for _, typ := range Types() {
		types = append(types, string(typ))
	}
	if !slices.Equal(types, typeField.allowed) {
		t.Errorf("there are rules for the types %q", types)
	}
	if known := []string{TopologyOperation, UdfCustom, SensorChange, SpaceChange, DeviceMessage}; !slices.Equal(EventTypes(), known) {
		t.Errorf("event types %q, want %q", EventTypes(), known)
	}
	constants := []string{
		string(AuthenticationKey), string(AuthenticationIdentity), string(BodyEnvelope), string(BodyData),
		string(OrderingPartition), string(OrderingNone), string(OverflowBlock), string(OverflowDrop),
		string(RecoveryDrop), string(RecoveryCatchUp),
	}
	var values []string
	for _, f := range texts {
		if f.absent != "" {
			values = append(values, f.allowed...)
		}
	}
	if !slices.Equal(values, constants) {
		t.Errorf("values %q, want %q", values, constants)
	}
}

// A tag that a client or a proxy has kept is that of the endpoint after the upgrade of
// a copy, too, as long as nobody uses what is new; the tags are those of the version
// before. A record of a store can be read by a version that doesn't know what isn't used.
func TestFieldsThatNobodyUses(t *testing.T) {
	e := hub()
	e.ID = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"
	device := e
	device.EventTypes, device.Overflow, device.Filter = []string{DeviceMessage}, OverflowDrop, "type = 'DeviceMessage'"
	for want, e := range map[string]Endpoint{
		`"486d0cda9ab55ffe1828f1ba93a4bfb5"`: e,
		`"05ba98e796adf170ae48070a66d1f27b"`: device,
	} {
		if got := e.ETag(); got != want {
			t.Errorf("ETag %s, want %s", got, want)
		}
		if got := e.canonical().ETag(); got != want {
			t.Errorf("ETag %s of the canonical endpoint, want %s", got, want)
		}
	}
	record, err := Encode(e.canonical(), nil)
	must(t, err)
	file, err := EncodeSet([]Endpoint{e.canonical()}, nil)
	must(t, err)
	for _, f := range fields {
		if key := `"` + f.name + `"`; f.sparse && strings.Contains(string(record)+string(file), key) {
			t.Errorf("%s is spelled out:\n%s\n%s", f.name, record, file)
		}
	}
}

// A field that isn't supported ends the process at once.
func TestFieldsThatAreNotKnown(t *testing.T) {
	for name, typ := range map[string]reflect.Type{
		"no key": reflect.TypeFor[struct{ A string }](),
		"another kind": reflect.TypeFor[struct {
			A float64 `json:"a"`
		}](),
		"another use": reflect.TypeFor[struct {
			A string `json:"a" endpoint:"secrt"`
		}](),
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: taken", name)
				}
			}()
			describe(typ)
		}()
	}
}
