package endpoints

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

const (
	oldKey  = "c3RvcmVkLXByaW1hcnk="
	oldKey2 = "c3RvcmVkLXNlY29uZGFyeQ=="
)

func storedHub() Endpoint {
	return Endpoint{
		ID: "568fd394-380b-46fa-925a-ebb96f658cce", Type: TypeEventHub, EventTypes: []string{SensorChange}, Path: "hub",
		ConnectionString:          "Endpoint=sb://ns.example.net/;SharedAccessKeyName=send;SharedAccessKey=" + oldKey,
		SecondaryConnectionString: "Endpoint=sb://ns.example.net/;SharedAccessKeyName=send;SharedAccessKey=" + oldKey2,
	}.canonical()
}

func storedGrid() Endpoint {
	return Endpoint{
		ID: "568fd394-380b-46fa-925a-ebb96f658cce", Type: TypeEventGrid, EventTypes: []string{SensorChange}, Path: "t.eventgrid.example.net",
		ConnectionString: oldKey, SecondaryConnectionString: oldKey2,
	}.canonical()
}

// What is shown of an endpoint can be sent back as it is, and means the same.
func TestMaskedEndpointCanBeSentBack(t *testing.T) {
	signed := storedHub()
	signed.ConnectionString, signed.SecondaryConnectionString = "Endpoint=sb://ns.example.net/;SharedAccessSignature=SharedAccessSignature sr=a&sig=b", ""
	another := storedHub()
	another.ConnectionString = "SharedAccessKey=" + oldKey + ";SharedAccessKeyName=send;Endpoint=sb://ns.example.net/;" // order
	for name, stored := range map[string]Endpoint{"hub": storedHub(), "grid": storedGrid(), "signature": signed, "another order": another} {
		body, err := json.Marshal(stored)
		if err != nil || strings.Contains(string(body), oldKey) {
			t.Fatalf("%s: %s, %v", name, body, err)
		}
		got, err := Decode(body, stored, Options{})
		if err != nil || !got.Equal(stored) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestMaskedKeyStaysWhereItIs(t *testing.T) {
	hub := func(primary, secondary string) string {
		return `{"type":"EventHub","eventTypes":["SpaceChange"],"path":"hub","connectionString":"` + primary + `","secondaryConnectionString":"` + secondary + `"}`
	}
	grid := func(path, key string) string {
		return `{"type":"EventGrid","eventTypes":["SpaceChange"],"path":"` + path + `","connectionString":"` + key + `"}`
	}
	const here = "Endpoint=sb://ns.example.net/;SharedAccessKeyName=send;SharedAccessKey=***"
	for name, tt := range map[string]struct {
		body   string
		stored Endpoint
		want   string // of the error; "" is none
		key    string
	}{
		"kept":                    {hub(here, ""), storedHub(), "", "SharedAccessKey=" + oldKey},
		"kept, other case":        {hub("sharedaccesskey=***;sharedaccesskeyname=send;endpoint=sb://NS.example.net", ""), storedHub(), "", "sharedaccesskey=" + oldKey},
		"kept, along with a hub":  {hub(here+";EntityPath=hub", ""), storedHub(), "", oldKey},
		"kept by another type":    {strings.Replace(hub(here, ""), "EventHub", "ServiceBus", 1), storedHub(), "", oldKey},
		"kept, for another hub":   {strings.Replace(hub(here+";EntityPath=other", ""), `"hub"`, `"other"`, 1), storedHub(), "", oldKey},
		"new primary":             {hub("Endpoint=sb://ns.example.net/;SharedAccessKeyName=send;SharedAccessKey=bmV3", here), storedHub(), "", "bmV3"},
		"a new endpoint":          {hub(here, ""), Endpoint{}, "connectionString: is masked", ""},
		"the whole string, new":   {hub("***", ""), Endpoint{}, "connectionString: is masked", ""},
		"a new topic":             {grid("t.eventgrid.example.net", "***"), Endpoint{}, "connectionString: is masked", ""},
		"another host":            {hub("Endpoint=sb://evil.example.net/;SharedAccessKeyName=send;SharedAccessKey=***", ""), storedHub(), "connectionString: is masked", ""},
		"another port":            {hub("Endpoint=sb://ns.example.net:5671/;SharedAccessKeyName=send;SharedAccessKey=***", ""), storedHub(), "is masked", ""},
		"two hosts":               {hub("Endpoint=sb://ns.example.net/;Endpoint=sb://evil/;SharedAccessKeyName=send;SharedAccessKey=***", ""), storedHub(), "is masked", ""},
		"another host, secondary": {hub(here, "Endpoint=sb://evil.example.net/;SharedAccessKeyName=send;SharedAccessKey=***"), storedHub(), "secondaryConnectionString: is masked", ""},
		"another policy":          {hub("Endpoint=sb://ns.example.net/;SharedAccessKeyName=root;SharedAccessKey=***", ""), storedHub(), "is masked", ""},
		"without encryption":      {hub(here+";UseDevelopmentEmulator=true", ""), storedHub(), "is masked", ""},
		"the whole string":        {hub("***", "***"), storedHub(), "", "SharedAccessKey=" + oldKey},
		"no secondary stored":     {hub(here, here), func() Endpoint { e := storedHub(); e.SecondaryConnectionString = ""; return e }(), "secondaryConnectionString: is masked", ""},
		"another part":            {hub("Endpoint=sb://ns.example.net/;SharedAccessKeyName=***;SharedAccessKey=***", ""), storedHub(), "is masked", ""},
		"a signature for a key":   {hub("Endpoint=sb://ns.example.net/;SharedAccessSignature=***", ""), storedHub(), "is masked", ""},
		"topic kept":              {grid("T.eventgrid.example.net", "***"), storedGrid(), "", oldKey},
		"topic moved":             {grid("evil.example.net", "***"), storedGrid(), "connectionString: is masked", ""},
		"hub to topic":            {grid("ns.example.net", "***"), storedHub(), "is masked", ""},
		"topic to hub":            {hub("Endpoint=sb://t.eventgrid.example.net/;SharedAccessKeyName=a;SharedAccessKey=***", ""), storedGrid(), "is masked", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Decode([]byte(tt.body), tt.stored, Options{AllowDevelopmentEmulator: true})
			if tt.want == "" {
				if err != nil || !strings.Contains(got.ConnectionString, tt.key) || got.ID != tt.stored.ID {
					t.Errorf("%v: %v", got, err)
				}
				return
			}
			if _, ok := errors.AsType[ValidationErrors](err); !ok || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), oldKey) || strings.Contains(err.Error(), oldKey2)) {
				t.Errorf("a key shows: %v", err)
			}
		})
	}
}
