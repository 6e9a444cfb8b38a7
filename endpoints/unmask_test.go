package endpoints_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"twinegress/endpoints"
	"twinegress/endpoints/storetest"
)

// What is shown of an endpoint can be sent back as it is, and means the same.
func TestMaskedEndpointCanBeSentBack(t *testing.T) {
	withKeys := func(primary, secondary string) func(*endpoints.Endpoint) {
		return func(e *endpoints.Endpoint) { e.ConnectionString, e.SecondaryConnectionString = primary, secondary }
	}
	const signature = namespace + ";SharedAccessSignature=SharedAccessSignature sr=a&sig=SECRET"
	const anotherOrder = "SharedAccessKey=" + storetest.Key1 + ";SharedAccessKeyName=send;" + namespace + ";"
	set, err := endpoints.Prepare([]endpoints.Endpoint{
		storetest.Hub(""), storetest.Grid(""), storetest.Hub("", withKeys(signature, "")), storetest.Hub("", withKeys(anotherOrder, keyed2)),
	}, endpoints.Options{})
	storetest.Must(t, err)
	for _, stored := range set {
		body, err := json.Marshal(stored)
		storetest.Must(t, err)
		storetest.NoSecret(t, "a body", string(body))
		got, err := endpoints.Decode(body, stored, endpoints.Options{})
		if err != nil || !got.Equal(stored) || got.ConnectionString != stored.ConnectionString {
			t.Errorf("%s: %v, %v", body, got, err)
		}
	}
}

func TestMaskedKeyStaysWhereItIs(t *testing.T) {
	const (
		policy  = ";SharedAccessKeyName=send;SharedAccessKey=***"
		here    = namespace + policy
		refused = "connectionString: is masked"
	)
	hubWith := func(primary, secondary string) fields {
		return hub.with(fields{"connectionString": primary, "secondaryConnectionString": secondary})
	}
	gridAt := func(path string) fields {
		return grid.with(fields{"path": path, "connectionString": "***", "secondaryConnectionString": nil})
	}
	storedHub, storedGrid := storetest.Hub(""), storetest.Grid("")
	storedHub.ID = "568fd394-380b-46fa-925a-ebb96f658cce"
	oneKey := storedHub
	oneKey.SecondaryConnectionString = ""
	for name, tt := range map[string]struct {
		body   fields
		stored endpoints.Endpoint
		want   string // of the error; "" is none
		key    string
	}{
		"kept":                    {hubWith(here, ""), storedHub, "", "SharedAccessKey=" + storetest.Key1},
		"kept, other case":        {hubWith("sharedaccesskey=***;sharedaccesskeyname=send;endpoint=sb://NS.servicebus.windows.net", ""), storedHub, "", "sharedaccesskey=" + storetest.Key1},
		"kept, along with a hub":  {hubWith(here+";EntityPath=new", ""), storedHub, "", storetest.Key1},
		"kept by another type":    {hubWith(here, "").with(fields{"type": "ServiceBus"}), storedHub, "", storetest.Key1},
		"kept, for another hub":   {hubWith(here+";EntityPath=other", "").with(fields{"path": "other"}), storedHub, "", storetest.Key1},
		"new primary":             {hubWith(namespace+";SharedAccessKeyName=send;SharedAccessKey=bmV3", here), storedHub, "", "bmV3"},
		"the whole string":        {hubWith("***", "***"), storedHub, "", "SharedAccessKey=" + storetest.Key1},
		"a new endpoint":          {hubWith(here, ""), endpoints.Endpoint{}, refused, ""},
		"the whole string, new":   {hubWith("***", ""), endpoints.Endpoint{}, refused, ""},
		"another host":            {hubWith("Endpoint=sb://evil.example.net/"+policy, ""), storedHub, refused, ""},
		"another port":            {hubWith("Endpoint=sb://ns.servicebus.windows.net:5671/"+policy, ""), storedHub, refused, ""},
		"two hosts":               {hubWith(namespace+";Endpoint=sb://evil/"+policy, ""), storedHub, refused, ""},
		"another host, secondary": {hubWith(here, "Endpoint=sb://evil.example.net/"+policy), storedHub, "secondaryConnectionString: is masked", ""},
		"another policy":          {hubWith(strings.Replace(here, "send", "root", 1), ""), storedHub, refused, ""},
		"without encryption":      {hubWith(here+";UseDevelopmentEmulator=true", ""), storedHub, refused, ""},
		"no secondary stored":     {hubWith(here, here), oneKey, "secondaryConnectionString: is masked", ""},
		"another part":            {hubWith(strings.Replace(here, "send", "***", 1), ""), storedHub, refused, ""},
		"a signature for a key":   {hubWith(namespace+";SharedAccessSignature=***", ""), storedHub, refused, ""},
		"topic kept":              {gridAt("Topic.westus-1.eventgrid.azure.net"), storedGrid, "", storetest.Key1},
		"a new topic":             {gridAt("topic.westus-1.eventgrid.azure.net"), endpoints.Endpoint{}, refused, ""},
		"topic moved":             {gridAt("evil.example.net"), storedGrid, refused, ""},
		"hub to topic":            {gridAt("ns.servicebus.windows.net"), storedHub, refused, ""},
		"topic to hub":            {hubWith("Endpoint=sb://topic.westus-1.eventgrid.azure.net/"+policy, ""), storedGrid, refused, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := endpoints.Decode([]byte(tt.body.body(t)), tt.stored, endpoints.Options{AllowDevelopmentEmulator: true})
			if tt.want == "" {
				if err != nil || !strings.Contains(got.ConnectionString, tt.key) || got.ID != tt.stored.ID {
					t.Errorf("%v: %v", got, err)
				}
				return
			}
			if _, ok := errors.AsType[endpoints.ValidationErrors](err); !ok || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%v, want %q", err, tt.want)
			}
			storetest.NoSecret(t, "the error", err.Error())
		})
	}
}
