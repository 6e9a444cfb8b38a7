package endpoints_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

var (
	asDevice = func(e *endpoints.Endpoint) { e.EventTypes = []string{endpoints.DeviceMessage} }
	emulator = func(e *endpoints.Endpoint) { e.ConnectionString += ";UseDevelopmentEmulator=true" }
)

func byTheIdentity(connection string) func(*endpoints.Endpoint) {
	return func(e *endpoints.Endpoint) {
		e.Authentication, e.ConnectionString, e.SecondaryConnectionString = "IdentityBased", connection, ""
	}
}

// What is allowed, and not obviously so. What isn't is in violationrows_test.go.
func TestValid(t *testing.T) {
	with := func(f func(*endpoints.Endpoint)) endpoints.Endpoint { return storetest.Hub("", f) }
	for name, tc := range map[string]struct {
		e endpoints.Endpoint
		o endpoints.Options
	}{
		"any spelling": {e: with(func(e *endpoints.Endpoint) {
			e.Type, e.EventTypes, e.Body = "EVENTHUB", []string{"sensorchange"}, "DATA"
			e.Ordering, e.Overflow = "None", "Drop"
		})},
		"no secondary":                   {e: storetest.Device("")},
		"space around":                   {e: with(func(e *endpoints.Endpoint) { e.ConnectionString += "\n"; e.Path = " hub " })},
		"all that is not alone":          {e: with(func(e *endpoints.Endpoint) { e.EventTypes = endpoints.EventTypes()[:4] })},
		"id":                             {e: with(func(e *endpoints.Endpoint) { e.ID = "0F5C1C1E-6E0A-4F0E-9A53-6D3E6A1B2C3D" })},
		"grid on a port":                 {e: storetest.Grid("", func(e *endpoints.Endpoint) { e.Path = "localhost:8443" })},
		"the same namespace in capitals": {e: with(func(e *endpoints.Endpoint) { e.SecondaryConnectionString = strings.Replace(keyed2, "ns.", "NS.", 1) })},
		"the hub in another case":        {e: with(func(e *endpoints.Endpoint) { e.Path, e.ConnectionString = "Hub-1", keyed+";EntityPath=hUB-1" })},
		"the hubs of both in other cases": {e: with(func(e *endpoints.Endpoint) {
			e.ConnectionString, e.SecondaryConnectionString = keyed+";EntityPath=HUB", keyed2+";EntityPath=Hub"
		})},
		"device, the hub in another case": {e: storetest.Device("", func(e *endpoints.Endpoint) { e.Path = "HUB" })},
		"names of the world":              {e: with(func(e *endpoints.Endpoint) { e.Name, e.Path = "Gebäude 7 – 東京 🏢", "gebäude" })},
		"emulator":                        {e: with(emulator), o: endpoints.Options{AllowDevelopmentEmulator: true}},
		"emulator, off":                   {e: with(func(e *endpoints.Endpoint) { e.ConnectionString += ";UseDevelopmentEmulator=false" })},
		"device by identity":              {e: storetest.Hub("", asDevice, byTheIdentity(namespace+";EntityPath=hub"))},
		"identity, where the operator allows it": {
			e: with(byTheIdentity("Endpoint=sb://hub.corp.example:5671/")),
			o: endpoints.Options{IdentityDomains: []string{"corp.example"}},
		},
	} {
		before := fmt.Sprint(tc.e.EventTypes)
		if _, err := endpoints.Prepare([]endpoints.Endpoint{tc.e}, tc.o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if after := fmt.Sprint(tc.e.EventTypes); after != before {
			t.Errorf("%s: Prepare changed its endpoint: %s, was %s", name, after, before)
		}
	}
}

func TestPrepareSet(t *testing.T) {
	const id = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"
	withID := func(id string) func(*endpoints.Endpoint) { return func(e *endpoints.Endpoint) { e.ID = id } }
	for name, tc := range map[string]struct {
		in   []endpoints.Endpoint
		want []string // whole violations
	}{
		"none":       {},
		"one device": {in: []endpoints.Endpoint{storetest.Hub(""), storetest.Device("d")}},
		"two devices": {
			in:   []endpoints.Endpoint{storetest.Device("d1"), storetest.Hub(""), storetest.Device("d2")},
			want: []string{"endpoints[2] (d2): eventTypes: only one endpoint may take DeviceMessage, and endpoints[0] (d1) does"},
		},
		"one name twice": {
			in:   []endpoints.Endpoint{storetest.Hub("a"), storetest.Grid("a")},
			want: []string{"endpoints[1] (a): name: is already that of endpoints[0] (a)"},
		},
		"one id twice, in two spellings": {
			in:   []endpoints.Endpoint{storetest.Hub("", withID(id)), storetest.Grid("", withID(strings.ToUpper(id)))},
			want: []string{"endpoints[1]: id: is already that of endpoints[0]"},
		},
		"each one's own": {
			in: []endpoints.Endpoint{
				storetest.Hub("", func(e *endpoints.Endpoint) { e.Path = "" }),
				storetest.Grid("g", func(e *endpoints.Endpoint) { e.Body = "x" }),
				storetest.Hub("", withID(strings.ReplaceAll(id, "-", ""))),
			},
			want: []string{
				"endpoints[0]: path: is required: the name of the event hub",
				`endpoints[1] (g): body: unknown value "x"; allowed are envelope, data`,
				"endpoints[2]: id: must be a UUID such as 0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d, or be left out",
			},
		},
		"mistakes that could be reported twice": {
			in: []endpoints.Endpoint{
				storetest.Device("", func(e *endpoints.Endpoint) { e.ConnectionString = keyed + ";EntityPath=/hub" }),
				storetest.Hub("", byTheIdentity(namespace), emulator),
			},
			want: []string{
				"endpoints[0]: connectionString: is not a connection string: part 4: EntityPath must neither start nor end with /",
				"endpoints[1]: connectionString: is not a connection string: UseDevelopmentEmulator has no place beside identityBased: the token would travel in the clear",
			},
		},
	} {
		got, err := endpoints.Prepare(tc.in, endpoints.Options{AllowDevelopmentEmulator: true})
		switch {
		case len(tc.want) > 0:
			if err == nil || err.Error() != strings.Join(tc.want, "\n") {
				t.Errorf("%s: got\n%v\nwant\n%s", name, err, strings.Join(tc.want, "\n"))
			}
		case err != nil || len(got) != len(tc.in):
			t.Errorf("%s: got %d, %v", name, len(got), err)
		}
	}
}

// The ids are written down here because they must never change: metrics,
// dashboards and dead letters in the field hold them.
func TestStableIDs(t *testing.T) {
	const id = "0f5c1c1e-6e0a-4f0e-9a53-6d3e6a1b2c3d"
	prepare := func(eps ...endpoints.Endpoint) (ids []string, set []endpoints.Endpoint) {
		t.Helper()
		set, err := endpoints.Prepare(eps, endpoints.Options{})
		storetest.Must(t, err)
		for _, e := range set {
			ids = append(ids, e.ID)
			if u, err := uuid.Parse(e.ID); err != nil || e.ID != id && u.Version() != 5 {
				t.Errorf("%s: version %d, %v", e.ID, u.Version(), err)
			}
		}
		return ids, set
	}
	hub, grid := storetest.Hub(""), storetest.Grid("")
	explicit := storetest.Hub("x", func(e *endpoints.Endpoint) { e.ID = strings.ToUpper(id) })
	derived := func(of string) string {
		return uuid.NewSHA1(uuid.MustParse("5b0a1bd4-4f0c-5d0e-9c39-7f2f4d1f6a11"), []byte(of)).String()
	}
	want := []string{
		derived("name\x00telemetry"),
		derived("place\x00EventHub\x00ns.servicebus.windows.net\x00hub\x000"),
		derived("place\x00EventHub\x00ns.servicebus.windows.net\x00hub\x001"),
		derived("place\x00EventGrid\x00topic.westus-1.eventgrid.azure.net\x00topic.westus-1.eventgrid.azure.net\x000"),
		id,
	}
	got, set := prepare(storetest.Hub("telemetry"), hub, hub, grid, explicit)
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if first := got[0]; first != "9816fabb-e1c4-51c2-97fe-e51cb206265b" {
		t.Errorf("the id of the name telemetry changed: %s", first)
	}

	// What an id doesn't depend on: keys, event types, order among others.
	again, _ := prepare(grid, storetest.Hub("", func(e *endpoints.Endpoint) {
		e.ConnectionString, e.SecondaryConnectionString = keyed2, keyed
		e.EventTypes = []string{endpoints.SpaceChange}
	}))
	if again[0] != want[3] || again[1] != want[1] {
		t.Errorf("ids move: %v, want %v and %v", again, want[3], want[1])
	}
	// A name given to one of two equals leaves the other the first rank.
	if two, _ := prepare(storetest.Hub("telemetry"), hub); two[1] != want[1] {
		t.Errorf("rank counts named endpoints: %v", two)
	}
	// Ids that were written down stay. Two more are added by hand: of the same
	// place, and of the name that is free again.
	set[0].Name = "new"
	all, _ := prepare(append(set, hub, storetest.Hub("telemetry"))...)
	if !slices.Equal(all[:len(want)], want) || slices.Contains(want, all[5]) || slices.Contains(want, all[6]) {
		t.Errorf("ids %v, want %v and two others", all, want)
	}
}

// The documented bodies are valid as soon as their placeholders are filled in;
// the placeholders happen to pass for names themselves.
func TestDocumentedSamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "samples", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no samples: %v", err)
	}
	fill := strings.NewReplacer("YOUR_NAMESPACE", "contoso-twins", "YOUR_PRIMARY_KEY", storetest.Key1,
		"YOUR_SECONDARY_KEY", storetest.Key2, "YOUR_EVENT_HUB_NAME", "twin.events-1", "YOUR_TOPIC_NAME", "twin-topic")
	var all []string
	for _, f := range files {
		data, err := os.ReadFile(f)
		storetest.Must(t, err)
		for _, body := range []string{string(data), fill.Replace(string(data))} {
			e, err := endpoints.Decode([]byte(body), endpoints.Endpoint{}, endpoints.Options{})
			if err != nil {
				t.Errorf("%s:\n%v", f, err)
			}
			storetest.NoSecret(t, "an endpoint", fmt.Sprintf("%+v", e))
		}
		all = append(all, fill.Replace(string(data)))
	}
	if eps, err := endpoints.DecodeSet([]byte("["+strings.Join(all, ",")+"]"), nil, endpoints.Options{}); err != nil || len(eps) != len(files) {
		t.Errorf("as one set: %d, %v", len(eps), err)
	}
}

// Clients keep entity tags across restarts, and compare what two copies say.
func TestETag(t *testing.T) {
	const want = `"8030c3c26327e93fa660be54352ab4f0"`
	with := func(f func(*endpoints.Endpoint)) string { return storetest.Hub("", f).ETag() }
	if got := storetest.Hub("").ETag(); got != want {
		t.Errorf("the ETag of the same endpoint changed: %s, was %s", got, want)
	}
	if with(func(e *endpoints.Endpoint) { e.Body, e.Authentication = "ENVELOPE", endpoints.AuthenticationKey }) != want {
		t.Error("a default that is spelled out makes another ETag")
	}
	if with(func(e *endpoints.Endpoint) { e.Path, e.Filter = "", "hub" }) == want {
		t.Error("a value in another field makes the same ETag")
	}
}

// The order of the event types matters to Diff and the ETag, not to Equal.
func TestEqualEventTypes(t *testing.T) {
	with := func(types ...string) endpoints.Endpoint {
		return storetest.Hub("", func(e *endpoints.Endpoint) { e.EventTypes = types })
	}
	a := with(endpoints.SensorChange, endpoints.SpaceChange)
	for name, tc := range map[string]struct {
		b    endpoints.Endpoint
		want bool
	}{
		"another order": {with(endpoints.SpaceChange, endpoints.SensorChange), true},
		"fewer":         {with(endpoints.SensorChange), false},
		"others":        {with(endpoints.SensorChange, endpoints.UdfCustom), false},
	} {
		if a.Equal(tc.b) != tc.want || tc.b.Equal(a) != tc.want || len(endpoints.Diff(a, tc.b).Fields) != 1 || a.ETag() == tc.b.ETag() {
			t.Errorf("%s: Equal is %t, Diff %v", name, a.Equal(tc.b), endpoints.Diff(a, tc.b))
		}
	}
}

// Where endpoints may be is the operator's to say, for keys as for identities.
func TestCheckHost(t *testing.T) {
	options := endpoints.Options{
		IdentityDomains: []string{"example"},
		CheckHost: func(host string) error {
			if strings.HasPrefix(host, "denied.") {
				return errors.New(host + " is not allowed")
			}
			return nil
		},
	}
	at := func(host string) map[string]endpoints.Endpoint {
		keys := "Endpoint=sb://" + host + "/;SharedAccessKeyName=send;SharedAccessKey=a2V5"
		return map[string]endpoints.Endpoint{
			"connectionString":    storetest.Hub("", func(e *endpoints.Endpoint) { e.ConnectionString, e.SecondaryConnectionString = keys, keys }),
			"path":                storetest.Grid("", func(e *endpoints.Endpoint) { e.Path = host }),
			"connectionString ()": storetest.Hub("", byTheIdentity("Endpoint=sb://"+host+"/")),
		}
	}
	for field, e := range at("allowed.example:443") {
		if _, err := endpoints.Prepare([]endpoints.Endpoint{e}, options); err != nil {
			t.Errorf("%s: %v", field, err)
		}
	}
	for field, e := range at("denied.example:443") {
		_, err := endpoints.Prepare([]endpoints.Endpoint{e}, options)
		name, _, _ := strings.Cut(field, " ")
		if err == nil || !strings.HasSuffix(err.Error(), name+": denied.example:443 is not allowed") {
			t.Errorf("%s: %v", field, err)
		}
	}
}
