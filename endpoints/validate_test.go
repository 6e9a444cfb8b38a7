package endpoints

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// What is allowed, and not obviously so. What isn't is in violationrows_test.go.
func TestValid(t *testing.T) {
	const entity = ";EntityPath=hub"
	device := func(e *Endpoint) {
		e.EventTypes = []string{DeviceMessage}
		e.ConnectionString, e.SecondaryConnectionString = ehConn+entity, ehConn2+entity
	}
	identity := func(e *Endpoint) {
		e.Authentication, e.ConnectionString, e.SecondaryConnectionString = "IdentityBased", "Endpoint=sb://ns.servicebus.windows.net/", ""
	}
	emulator := func(e *Endpoint) { e.ConnectionString += ";UseDevelopmentEmulator=true" }
	for name, tc := range map[string]struct {
		e Endpoint
		o Options
	}{
		"any spelling": {e: hub(func(e *Endpoint) {
			e.Type, e.EventTypes, e.Body = "EVENTHUB", []string{"sensorchange"}, "DATA"
			e.Ordering, e.Overflow = "None", "Drop"
		})},
		"no secondary":                   {e: hub(device, func(e *Endpoint) { e.SecondaryConnectionString = "" })},
		"space around":                   {e: hub(func(e *Endpoint) { e.ConnectionString += "\n"; e.Path = " hub " })},
		"all that is not alone":          {e: hub(func(e *Endpoint) { e.EventTypes = EventTypes()[:4] })},
		"id":                             {e: hub(func(e *Endpoint) { e.ID = "0F5C1C1E-6E0A-4F0E-9A53-6D3E6A1B2C3D" })},
		"grid on a port":                 {e: grid(func(e *Endpoint) { e.Path = "localhost:8443" })},
		"the same namespace in capitals": {e: hub(func(e *Endpoint) { e.SecondaryConnectionString = strings.Replace(ehConn2, "ns.", "NS.", 1) })},
		"emulator":                       {e: hub(emulator), o: Options{AllowDevelopmentEmulator: true}},
		"emulator, off":                  {e: hub(func(e *Endpoint) { e.ConnectionString += ";UseDevelopmentEmulator=false" })},
		"device by identity":             {e: hub(device, identity, func(e *Endpoint) { e.ConnectionString += entity })},
		"identity, where the operator allows it": {
			e: hub(identity, func(e *Endpoint) { e.ConnectionString = "Endpoint=sb://hub.corp.example:5671/" }),
			o: Options{IdentityDomains: []string{"corp.example"}},
		},
	} {
		before := fmt.Sprint(tc.e.EventTypes)
		if err := tc.e.canonical().violations(tc.o).err(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if after := fmt.Sprint(tc.e.EventTypes); after != before {
			t.Errorf("%s: canonical changed its endpoint: %s, was %s", name, after, before)
		}
	}
	wantViolations(t, hub(func(e *Endpoint) { e.ID = "0f5c1c1e6e0a4f0e9a536d3e6a1b2c3d" }).canonical().violations(Options{}).err(), "id: must be a UUID")
	// Said once.
	wantViolations(t, hub(device, func(e *Endpoint) { e.ConnectionString, e.SecondaryConnectionString = ehConn+";EntityPath=/hub", "" }).canonical().violations(Options{}).err(),
		"connectionString: neither start nor end")
	wantViolations(t, hub(identity, emulator).canonical().violations(Options{AllowDevelopmentEmulator: true}).err(),
		"connectionString: the token would travel in the clear")
}

func TestIDsThatWereWrittenDown(t *testing.T) {
	first, err := Prepare([]Endpoint{hub(), hub(named("old"))}, Options{})
	must(t, err)
	first[1].Name = "new"
	// Two more by hand: of the same place, and of the name that is free again.
	all, err := Prepare(append(slices.Clone(first), hub(), hub(named("old"))), Options{})
	must(t, err)
	if len(byID(all)) != 4 || all[0].ID != first[0].ID || all[1].ID != first[1].ID {
		t.Errorf("ids %v", all)
	}
}

func TestPrepareSet(t *testing.T) {
	device := hub(named("d1"), func(e *Endpoint) {
		e.EventTypes = []string{DeviceMessage}
		e.ConnectionString, e.SecondaryConnectionString = ehConn+";EntityPath=hub", ""
	})
	second := device.Clone()
	second.Name = "d2"
	const id = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"

	for name, tc := range map[string]struct {
		in   []Endpoint
		want []string // whole violations
	}{
		"none":       {},
		"one device": {in: []Endpoint{hub(), device}},
		"two devices": {
			in:   []Endpoint{device, hub(), second},
			want: []string{"endpoints[2] (d2): eventTypes: only one endpoint may take DeviceMessage, and endpoints[0] (d1) does"},
		},
		"one name twice": {
			in:   []Endpoint{hub(named("a")), grid(named("a"))},
			want: []string{"endpoints[1] (a): name: is already that of endpoints[0] (a)"},
		},
		"one id twice, in two spellings": {
			in: []Endpoint{
				hub(func(e *Endpoint) { e.ID = id }),
				grid(func(e *Endpoint) { e.ID = strings.ToUpper(id) }),
			},
			want: []string{"endpoints[1]: id: is already that of endpoints[0]"},
		},
		"each one's own": {
			in: []Endpoint{hub(func(e *Endpoint) { e.Path = "" }), grid(named("g"), func(e *Endpoint) { e.Body = "x" })},
			want: []string{
				"endpoints[0]: path: is required: the name of the event hub",
				`endpoints[1] (g): body: unknown value "x"; allowed are envelope, data`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Prepare(tc.in, Options{})
			if len(tc.want) > 0 {
				if err == nil || err.Error() != strings.Join(tc.want, "\n") {
					t.Fatalf("got\n%v\nwant\n%s", err, strings.Join(tc.want, "\n"))
				}
				return
			}
			if err != nil || len(got) != len(tc.in) {
				t.Fatalf("got %d, %v", len(got), err)
			}
		})
	}
}

// The ids are written down here because they must never change: metrics,
// dashboards and dead letters in the field hold them.
func TestStableIDs(t *testing.T) {
	const id = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"
	ids := func(eps ...Endpoint) []string {
		t.Helper()
		got, err := Prepare(eps, Options{})
		if err != nil {
			t.Fatal(err)
		}
		out := make([]string, len(got))
		for i, e := range got {
			out[i] = e.ID
			if u, err := uuid.Parse(e.ID); err != nil || e.ID != id && u.Version() != 5 {
				t.Errorf("%s: version %d, %v", e.ID, u.Version(), err)
			}
		}
		return out
	}
	explicit := func(e *Endpoint) { e.ID = strings.ToUpper(id) }
	got := ids(hub(named("telemetry")), hub(), hub(), grid(), hub(named("x"), explicit))
	want := []string{
		uuid.NewSHA1(idNamespace, []byte("name\x00telemetry")).String(),
		uuid.NewSHA1(idNamespace, []byte("place\x00EventHub\x00ns.servicebus.windows.net\x00hub\x000")).String(),
		uuid.NewSHA1(idNamespace, []byte("place\x00EventHub\x00ns.servicebus.windows.net\x00hub\x001")).String(),
		uuid.NewSHA1(idNamespace, []byte("place\x00EventGrid\x00topic.westus-1.eventgrid.azure.net\x00topic.westus-1.eventgrid.azure.net\x000")).String(),
		id,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if first := got[0]; first != "9816fabb-e1c4-51c2-97fe-e51cb206265b" {
		t.Errorf("the id of the name telemetry changed: %s", first)
	}

	// What an id doesn't depend on: keys, event types, order among others.
	again := ids(grid(), hub(func(e *Endpoint) {
		e.ConnectionString, e.SecondaryConnectionString = ehConn2, ehConn
		e.EventTypes = []string{SpaceChange}
	}))
	if again[0] != want[3] || again[1] != want[1] {
		t.Errorf("ids move: %v, want %v and %v", again, want[3], want[1])
	}
	// A name given to one of two equals leaves the other the first rank.
	if two := ids(hub(named("telemetry")), hub()); two[1] != want[1] {
		t.Errorf("rank counts named endpoints: %v", two)
	}
}

// The documented bodies are valid as soon as their placeholders are filled in;
// the placeholders happen to pass for names themselves.
func TestDocumentedSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "samples", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	fill := strings.NewReplacer("YOUR_NAMESPACE", "contoso-twins", "YOUR_PRIMARY_KEY", key1,
		"YOUR_SECONDARY_KEY", key2, "YOUR_EVENT_HUB_NAME", "twin.events-1", "YOUR_TOPIC_NAME", "twin-topic")
	var all []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, body := range []string{string(data), fill.Replace(string(data))} {
			e, err := Decode([]byte(body), Endpoint{}, Options{})
			if err != nil {
				t.Errorf("%s:\n%v", f, err)
			}
			noSecret(t, fmt.Sprintf("%+v", e))
		}
		all = append(all, fill.Replace(string(data)))
	}
	if eps, err := DecodeSet([]byte("["+strings.Join(all, ",")+"]"), nil, Options{}); err != nil || len(eps) != len(files) {
		t.Errorf("as one set: %d, %v", len(eps), err)
	}
}
