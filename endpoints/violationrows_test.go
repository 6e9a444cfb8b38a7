package endpoints_test

import (
	"slices"
	"strings"

	"twinegress/endpoints/storetest"
)

// violations are all that can be wrong with an endpoint: TestEveryRuleIsTried
// finds the rule that has none.
func violations() []violation {
	return slices.Concat(fieldViolations, eventTypeViolations, positionViolations, pathViolations, keyViolations, connectionViolations(), placeViolations,
		identityViolations, documentViolations, conflicts)
}

// one is a violation about a single field.
func one(name string, good, changes fields, want ...string) violation {
	return violation{name: name, good: good, changes: changes, want: want}
}

var fieldViolations = []violation{
	one("name too long", hub, fields{"name": strings.Repeat("n", 129)}, "name: at most 128 characters"),
	one("name with a control character", bus, fields{"name": "a\x01b"}, "name: none that can't be seen"),
	one("no type", hub, fields{"type": nil}, "type: is required: one of EventHub, ServiceBus, EventGrid"),
	one("unknown type", hub, fields{"type": "Queue"}, `type: unknown value "Queue"; allowed are EventHub, ServiceBus, EventGrid`),
	one("keys for words", hub, fields{"type": keyed, "body": storetest.Key1, "eventTypes": []string{keyed}},
		"type: unknown value; allowed are", "body: unknown value; allowed are", "eventTypes: unknown event type; allowed are"),
	one("unknown type, no connection string", hub, fields{"type": "Queue", "connectionString": nil}, "type: unknown value", "connectionString: is required"),
	one("unknown authentication", grid, fields{"authentication": "some"}, "authentication: allowed are keyBased, identityBased"),
	one("unknown body", hub, fields{"body": "half"}, "body: allowed are envelope, data"),
	one("unknown ordering", hub, fields{"ordering": "some"}, "ordering: allowed are partition, none"),
	one("unknown overflow", hub, fields{"overflow": "some"}, "overflow: allowed are block, drop"),
	one("unknown overflow, Event Grid", grid, fields{"overflow": "some"}, "overflow: allowed are block, drop"),
	one("data alone to Event Grid", grid, fields{"body": "DATA"}, "body: data is not possible with type EventGrid"),
	one("no order, Service Bus", bus, fields{"ordering": "None"}, "ordering: none is only possible with type EventHub"),
	one("no order, Event Grid", grid, fields{"ordering": "none"}, "ordering: none is only possible with type EventHub"),
	one("a word for a text in a filter", hub, fields{"filter": " type = SensorChange"}, "filter: column 9: SensorChange is not known; text is in single quotes"),
	one("filter of an unknown event type", bus, fields{"filter": "type = 'Nope'"}, "filter: 'Nope' is not an event type"),
	one("filter of an unknown field", grid, fields{"filter": "colour = 'red'"}, "filter: colour is not known"),
	one("filter that turns the text round", hub, fields{"filter": "subject = 'a\u202eb'"}, "filter: column 13: U+202E has no place in a filter"),
	one("filter with a control character", bus, fields{"filter": "subject = \u009b'a'"}, "filter: column 11: U+009B has no place in a filter"),
	one("filter too long", device, fields{"filter": "subject = '" + strings.Repeat("x", 4096) + "'"}, "filter: longer than 4096 bytes"),
}

var eventTypeViolations = []violation{
	one("no event types", hub, fields{"eventTypes": nil}, "eventTypes: is required: one or more of TopologyOperation"),
	one("none in the list", bus, fields{"eventTypes": []string{}}, "eventTypes: is required"),
	one("unknown event type", grid, fields{"eventTypes": []string{"Nope"}}, `eventTypes: unknown event type "Nope"; allowed are TopologyOperation`),
	one("letter that only folds to one", hub, fields{"eventTypes": []string{"\u017fensorChange"}}, "eventTypes: unknown event type; allowed are"),
	one("repeated event type", hub, fields{"eventTypes": []string{"UdfCustom", "udfcustom"}}, "eventTypes: UdfCustom is listed more than once"),
	one("DeviceMessage to Service Bus", device, fields{"type": "ServiceBus"}, "eventTypes: DeviceMessage is only possible with type EventHub"),
	one("DeviceMessage to Event Grid", grid, fields{"eventTypes": []string{"DeviceMessage"}}, "eventTypes: DeviceMessage is only possible with type EventHub"),
	one("DeviceMessage beside another", device, fields{"eventTypes": []string{"DeviceMessage", "UdfCustom"}}, "eventTypes: DeviceMessage must be alone"),
}

var positionViolations = []violation{
	one("unknown recovery", hub, fields{"recovery": "later"}, "recovery: allowed are drop, catchUp"),
	one("enabled as a text", bus, fields{"enabled": "true"}, "enabled: must be true or false"),
	one("enabled as a number", grid, fields{"enabled": 1}, "enabled: must be true or false"),
	one("start at no time", grid, fields{"startAt": "yesterday"}, "startAt: must be now, earliest, or a time since 1970"),
	one("start at a seek's word", hub, fields{"startAt": "latest"}, "startAt: must be now, earliest, or a time since 1970"),
	one("start before 1970", hub, fields{"startAt": "1969-12-31T23:59:59Z"}, "startAt: must be now, earliest, or a time since 1970"),
	one("start at a time without a zone", hub, fields{"startAt": "2026-01-31T08:00:00"}, "startAt: with its zone"),
	one("start in the future, or elsewhere than it did", hub, fields{"startAt": "9999-01-31T08:00:00Z"}, "startAt: "),
	one("start as a number", bus, fields{"startAt": 7}, "startAt: must be a string"),
}

var pathViolations = []violation{
	one("no hub", hub, fields{"path": nil}, "path: is required: the name of the event hub"),
	one("no Service Bus topic", bus, fields{"path": ""}, "path: is required: the name of the Service Bus topic"),
	one("no Event Grid topic", grid, fields{"path": " "}, "path: is required: the topic's host name"),
	one("hub with a blank", hub, fields{"path": "a b"}, "path: must have no spaces and no invisible characters"),
	one("hub too long", hub, fields{"path": strings.Repeat("h", 261)}, "path: at most 260 characters"),
	one("hub that is a URL", hub, fields{"path": "sb://ns/hub"}, "path: none of ? # @"),
	one("Service Bus topic with a query", bus, fields{"path": "topic?a"}, "path: none of ? # @"),
	one("slash before a Service Bus topic", bus, fields{"path": "/topic"}, "path: neither start nor end with /"),
	one("slash after a hub", hub, fields{"path": "hub/"}, "path: neither start nor end with /"),
	one("Event Grid with a scheme", grid, fields{"path": "https://t.eventgrid.azure.net"}, "path: without https:// and without /api/events"),
	one("Event Grid with a path", grid, fields{"path": "t.eventgrid.azure.net/api/events"}, "path: without https:// and without /api/events"),
	one("Event Grid with a query", grid, fields{"path": "t.eventgrid.azure.net?api-version=1"}, "path: the topic's host name alone"),
	one("Event Grid with a user", grid, fields{"path": "me@t.eventgrid.azure.net"}, "path: the topic's host name alone"),
	one("Event Grid with a blank", grid, fields{"path": "t. eventgrid.azure.net"}, "path: a host has only letters, digits, dots and hyphens"),
	one("Event Grid with no host", grid, fields{"path": ":443"}, "path: the host is empty"),
	one("Event Grid on no port", grid, fields{"path": "t.eventgrid.azure.net:https"}, "path: its port must be a number from 1 to 65535"),
	one("Event Grid on two ports", grid, fields{"path": "t.eventgrid.azure.net:1:2"}, "path: not of the form host or host:port"),
	one("Event Grid, half an IPv6 address", grid, fields{"path": "[t]:443"}, "path: must be an IPv6 address"),
	one("Event Grid, host too long", grid, fields{"path": strings.Repeat("t.", 126) + "net"}, "path: longer than 253 characters"),
	one("Event Grid, part of the host too long", grid, fields{"path": strings.Repeat("t", 64) + ".net"}, "path: must have 1 to 63 characters"),
	one("Event Grid, part of the host empty", grid, fields{"path": "t..net"}, "path: must have 1 to 63 characters"),
	one("Event Grid, a hyphen at the end", grid, fields{"path": "t-.net"}, "path: must start and end with a letter or a digit"),
	one("Event Grid, half an IPv4 address", grid, fields{"path": "10.1.2"}, "path: must be an IPv4 address"),
}

// keyViolations are of Event Grid's keys.
var keyViolations = []violation{
	one("no key", grid, fields{"connectionString": nil}, "connectionString: is required: the topic's access key"),
	one("key too long", grid, fields{"connectionString": strings.Repeat("k", 8193)}, "connectionString: at most 8192 characters"),
	one("secondary key too long", grid, fields{"secondaryConnectionString": strings.Repeat("k", 8193)}, "secondaryConnectionString: at most 8192 characters"),
	one("key with a blank", grid, fields{"connectionString": "SEC RET"}, "connectionString: must not have spaces"),
	one("secondary key with a quote", grid, fields{"secondaryConnectionString": storetest.Key2[:8] + `"`}, "secondaryConnectionString: letters, digits and + / = - _ only"),
	one("key with its name", grid, fields{"connectionString": "aeg-sas-key=" + storetest.Key1[:8]}, "connectionString: has = at its end only"),
	one("connection string for a key", grid, fields{"connectionString": keyed}, "connectionString: the topic's access key, by itself"),
	one("masked key of nothing", grid, fields{"path": "other.example.net", "secondaryConnectionString": "***"}, "secondaryConnectionString: is masked, and can stand for the stored key only"),
}

// connectionViolations are of either connection string of an event hub or a
// Service Bus topic.
func connectionViolations() (all []violation) {
	const start = "Endpoint=sb://ns.servicebus.windows.net/;SharedAccessKeyName="
	for _, row := range []struct{ name, s, want string }{
		{"too long", keyed + strings.Repeat("=", 8192), "at most 8192 characters"},
		{"bare key", strings.TrimRight(storetest.Key1, "="), "part 1 is not of the form Name=value"},
		{"unknown part", keyed + ";EntityPaht=new", "part 4: unknown name"},
		{"invisible character in a name", keyed + ";\u200bEntityPath=new", "part 4: its name has a space or an invisible character in it"},
		{"space within a name", keyed + ";Entity Path=new", "part 4: its name has a space or an invisible character in it"},
		{"policy with an override of direction", start + "se\u202end;SharedAccessKey=" + storetest.Key1, "part 2: SharedAccessKeyName must be a policy's name"},
		{"thousands of faults", strings.Repeat("a=;", 2700), "part 20 repeats a name that was given before; Endpoint is missing"},
		{"repeated part", keyed + ";endpoint=sb://ns/", "part 4 repeats a name"},
		{"no endpoint", "SharedAccessKeyName=send;SharedAccessKey=" + storetest.Key1, "Endpoint is missing"},
		{"another scheme", strings.Replace(keyed, "sb:", "https:", 1), "Endpoint must start with sb://"},
		{"no host", strings.Replace(keyed, "ns.servicebus.windows.net/", "", 1), "Endpoint must be sb://host/ or sb://host:port/"},
		{"no key name", namespace + ";SharedAccessKey=" + storetest.Key1, "SharedAccessKeyName is missing"},
		{"no key", start + "send", "SharedAccessKey is missing"},
		{"neither key nor name", namespace, "SharedAccessKeyName and SharedAccessKey are missing"},
		{"key and name swapped", start + storetest.Key1 + ";SharedAccessKey=send", "SharedAccessKeyName must be a policy's name"},
		{"empty key", start + "send;SharedAccessKey=", "SharedAccessKey must not be empty"},
		{"key with a blank", start + "send;SharedAccessKey=SEC RET", "SharedAccessKey must not have spaces"},
		{"key that is none", start + "send;SharedAccessKey=<key>", "SharedAccessKey must be a key"},
		{"key and signature", keyed + ";SharedAccessSignature=sr=a", "SharedAccessSignature takes the place of"},
		{"blank signature", namespace + ";SharedAccessSignature= ", "SharedAccessSignature must be a signature"},
		{"empty entity", keyed + ";EntityPath=", "EntityPath must not be empty"},
		{"another entity", keyed + ";EntityPath=other", "EntityPath must be the same as path"},
		{"plain text", keyed + ";UseDevelopmentEmulator=true", "UseDevelopmentEmulator=true turns encryption off and is not allowed here"},
		{"plain text perhaps", keyed + ";UseDevelopmentEmulator=perhaps", "UseDevelopmentEmulator must be true or false"},
		{"masked key of another policy", start + "other;SharedAccessKey=***", "is masked, and can stand for the stored key only"},
	} {
		for _, kind := range []struct {
			name string
			good fields
		}{{"hub", hub}, {"Service Bus topic", bus}} {
			for _, field := range []string{"connectionString", "secondaryConnectionString"} {
				all = append(all, one(row.name+", "+field+" of a "+kind.name, kind.good, fields{field: row.s}, field+": "+row.want))
			}
		}
	}
	return all
}

// placeViolations are of where the connection strings lead to.
var placeViolations = []violation{
	one("no connection string", hub, fields{"connectionString": nil}, "connectionString: is required: Endpoint=sb://…;SharedAccessKeyName=…"),
	one("no connection string, Service Bus", bus, fields{"connectionString": ""}, "connectionString: is required"),
	one("another namespace", hub, fields{"secondaryConnectionString": strings.Replace(keyed2, "ns.", "other.", 1)},
		"secondaryConnectionString: other.servicebus.windows.net is not ns.servicebus.windows.net"),
	one("another namespace, Service Bus", bus, fields{"connectionString": strings.Replace(keyed, "ns.", "other.", 1)},
		"secondaryConnectionString: must name the same namespace as connectionString"),
	one("another port", hub, fields{"secondaryConnectionString": strings.Replace(keyed2, ".net/", ".net:5671/", 1)},
		"secondaryConnectionString: must name the same namespace as connectionString"),
	one("two entities and no path", hub, fields{"path": nil, "connectionString": keyed + ";EntityPath=a", "secondaryConnectionString": keyed2 + ";EntityPath=b"},
		"path: is required", "secondaryConnectionString: must name the same EntityPath as connectionString"),
	one("two entities, neither the path", bus, fields{"connectionString": keyed + ";EntityPath=a", "secondaryConnectionString": keyed2 + ";EntityPath=b"},
		"connectionString: EntityPath must be the same as path", "secondaryConnectionString: EntityPath must be the same as path"),
	one("DeviceMessage without EntityPath", device, fields{"connectionString": keyed}, "connectionString: EntityPath is mandatory for DeviceMessage"),
	one("DeviceMessage, secondary without EntityPath", device, fields{"secondaryConnectionString": keyed2},
		"secondaryConnectionString: EntityPath is mandatory for DeviceMessage"),
	one("DeviceMessage without EntityPath, and a key that is none", device,
		fields{"secondaryConnectionString": nil, "connectionString": "Endpoint=sb://ns/;SharedAccessKeyName=send;SharedAccessKey=a b;UseDevelopmentEmulator=true"},
		"connectionString: SharedAccessKey must not have spaces", "connectionString: turns encryption off", "connectionString: EntityPath is mandatory"),
	one("DeviceMessage to another hub", device, fields{"path": "other"},
		"connectionString: EntityPath must be the same as path", "secondaryConnectionString: EntityPath must be the same as path"),
}

// identityViolations are of endpoints that this process's identity opens.
var identityViolations = []violation{
	one("identity and a second key", identityHub, fields{"secondaryConnectionString": keyed2}, "secondaryConnectionString: has no place beside identityBased"),
	one("identity and a second key, Service Bus", identityBus, fields{"secondaryConnectionString": namespace}, "secondaryConnectionString: has no place beside identityBased"),
	one("identity and keys, Event Grid", identityGrid, fields{"connectionString": storetest.Key1, "secondaryConnectionString": storetest.Key2},
		"connectionString: has no place beside identityBased: for EventGrid it is a key", "secondaryConnectionString: has no place beside identityBased"),
	one("identity and a key", identityHub, fields{"connectionString": keyed}, "connectionString: SharedAccessKey and SharedAccessSignature have no place beside identityBased"),
	one("identity and a key, Service Bus", identityBus, fields{"connectionString": keyed}, "connectionString: have no place beside identityBased"),
	one("identity and a key, DeviceMessage", identityDevice, fields{"connectionString": keyed + deviceHub}, "connectionString: have no place beside identityBased"),
	one("identity and a signature", identityHub, fields{"connectionString": namespace + ";SharedAccessSignature=sr=a"}, "connectionString: have no place beside identityBased"),
	one("identity in the clear", identityBus, fields{"connectionString": namespace + ";UseDevelopmentEmulator=true"},
		"connectionString: UseDevelopmentEmulator has no place beside identityBased: the token would travel in the clear"),
	one("identity and no namespace", identityHub, fields{"connectionString": nil}, "connectionString: is required: Endpoint=sb://NAMESPACE/, without keys"),
	one("identity and no namespace, Service Bus", identityBus, fields{"connectionString": nil}, "connectionString: is required: Endpoint=sb://NAMESPACE/, without keys"),
	one("identity and an entity alone", identityDevice, fields{"connectionString": deviceHub}, "connectionString: Endpoint is missing"),
	one("identity and no topic, Event Grid", identityGrid, fields{"path": nil}, "path: is required: the topic's host name"),
	one("identity, namespace by itself", identityHub, fields{"connectionString": "ns.servicebus.windows.net"}, "connectionString: part 1 is not of the form Name=value"),
	one("identity at somebody's host", identityHub, fields{"connectionString": "Endpoint=sb://servicebus.windows.net.example.com/"},
		"connectionString: this process's own token, and only to hosts under servicebus.windows.net"),
	one("identity at somebody's host, Service Bus", identityBus, fields{"connectionString": "Endpoint=sb://evilservicebus.windows.net:5671/"}, "connectionString: only to hosts under"),
	one("identity at somebody's host, Event Grid", identityGrid, fields{"path": "eventgrid.azure.net.example.com"}, "path: only to hosts under eventgrid.azure.net"),
	one("identity at Event Grid", identityHub, fields{"connectionString": "Endpoint=sb://t.westus-1.eventgrid.azure.net/"}, "connectionString: only to hosts under servicebus.windows.net"),
	one("identity at Service Bus, Event Grid", identityGrid, fields{"path": "relay.servicebus.windows.net"}, "path: only to hosts under eventgrid.azure.net"),
	one("identity, DeviceMessage without EntityPath", identityDevice, fields{"connectionString": namespace}, "connectionString: EntityPath is mandatory for DeviceMessage"),
	one("identity, DeviceMessage to another hub", identityDevice, fields{"path": "other"}, "connectionString: EntityPath must be the same as path"),
	one("identity, another entity", identityBus, fields{"connectionString": namespace + ";EntityPath=other"}, "connectionString: EntityPath must be the same as path"),
	one("identity, DeviceMessage to Service Bus", identityDevice, fields{"type": "ServiceBus"}, "eventTypes: DeviceMessage is only possible with type EventHub"),
	one("identity, data alone to Event Grid", identityGrid, fields{"body": "data"}, "body: data is not possible with type EventGrid"),
	one("identity, no order", identityBus, fields{"ordering": "none"}, "ordering: none is only possible with type EventHub"),
}

// documentViolations are of the JSON itself.
var documentViolations = []violation{
	one("no texts", hub, fields{"name": 1, "type": 1, "path": 1, "connectionString": 1, "secondaryConnectionString": 1, "body": 1, "ordering": 1, "overflow": true, "authentication": []int{}, "filter": fields{}},
		"name: must be a string", "type: must be a string", "path: must be a string", "connectionString: must be a string", "secondaryConnectionString: must be a string",
		"body: must be a string", "ordering: must be a string", "overflow: must be a string", "authentication: must be a string", "filter: must be a string"),
	one("event types are no list", hub, fields{"eventTypes": "UdfCustom"}, "eventTypes: must be an array of strings"),
	one("65 event types", bus, fields{"eventTypes": strings.Split(strings.Repeat("UdfCustom,", 64)+"UdfCustom", ",")}, "eventTypes: has 65 entries, and may have 64"),
	one("64 event types", bus, fields{"eventTypes": strings.Split(strings.Repeat("UdfCustom,", 63)+"UdfCustom", ",")}, "eventTypes: UdfCustom is listed more than once"),
	{name: "half a surrogate pair", text: strings.Replace(plainHub, `"path":"`, `"name":"a\ud800b","filter":"subject = '\udc00'","path":"\ufffd`, 1), want: []string{
		"name: has a character in it that can't be read", "filter: has a character in it that can't be read", "path: has a character in it that can't be read",
	}},
	{name: "no UTF-8", text: "{\n \"name\":\"a\xffb\"}", want: []string{": is not valid UTF-8: line 2, column 11"}},
	{name: "UTF-16", text: "\xff\xfe{\x00}\x00", want: []string{": is not valid UTF-8: line 1, column 1"}},
	one("null among the event types", bus, fields{"eventTypes": []any{"UdfCustom", nil}}, "eventTypes: must be an array of strings, without null"),
	one("unknown field", grid, fields{"colour": "red"}, "colour: unknown field"),
	one("mistyped field", grid, fields{"conectionStrin": "SECRET", "eventtype": "x"}, "conectionStrin: unknown field; did you mean connectionString?", "eventtype: unknown field; did you mean eventTypes?"),
	one("connection string for a field", hub, fields{keyed: ""}, "…: unknown field"),
	one("many at once", bus, fields{
		"name": strings.Repeat("x", 129), "eventTypes": []string{"Nope", "UdfCustom", "UdfCustom"}, "path": "a b", "body": "b", "ordering": "o", "overflow": "v", "z": 1,
		"connectionString": "SECRET", "secondaryConnectionString": "SECRET",
	}, "name: at most 128", `eventTypes: unknown event type "Nope"`, "eventTypes: UdfCustom is listed more than once", "path: must have no spaces and no invisible characters",
		`body: unknown value "b"`, `ordering: unknown value "o"`, `overflow: unknown value "v"`, "z: unknown field",
		"connectionString: is not a connection string", "secondaryConnectionString: is not a connection string"),
	one("nothing", fields{}, nil, "type: is required", "eventTypes: is required", "connectionString: is required", "path: is required"),
	{name: "a field twice", text: plainHub[:1] + `"Path":"x",` + plainHub[1:], want: []string{"path: is given more than once"}},
	{name: "a list", text: "[" + plainHub + "]", want: []string{": an endpoint must be a JSON object"}},
	{name: "null", text: "null", want: []string{": an endpoint must be a JSON object"}},
	{name: "blank", text: " ", want: []string{": is empty, and is to be JSON"}},
	{name: "no JSON", text: "{\n  \"type\": \"EventHub\",\n  SECRET}", want: []string{": is not valid JSON: line 3, column 3: invalid character 'S'"}},
	{name: "half of it", text: `{"connectionString":"SECRET`, want: []string{": is not valid JSON: line 1, column 27: unexpected end"}},
	{name: "two of them", text: plainHub + plainHub, want: []string{": is not valid JSON"}},
}

var conflicts = []violation{
	{name: "a name that is taken", good: hub, changes: fields{"name": "taken"}, beside: grid.with(fields{"name": "taken"}), want: []string{"name: is already that of endpoint taken ("}},
	{name: "a second one for DeviceMessage", good: device, beside: identityDevice, want: []string{"eventTypes: only one endpoint may take DeviceMessage, and endpoint "}},
	{
		name: "both", good: device, changes: fields{"name": "taken"}, beside: device.with(fields{"name": "taken"}),
		want: []string{"name: is already that of", "eventTypes: only one endpoint may take DeviceMessage"},
	},
}
