package eventgrid

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"go.uber.org/goleak"

	"twinegress/internal/jsonwalk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAppendEvent(t *testing.T) {
	tests := map[string]struct{ doc, want string }{
		"nothing to take out":           {`{ "id" : "i" , "data" : {"topic":1} }`, `{ "id" : "i" , "data" : {"topic":1} }`},
		"topic":                         {`{"topic":"t","id":"i"}`, `{"id":"i"}`},
		"topic, in the middle":          {`{"id" : "i", "topic":{"a":["}",1]} , "x": 1e5}`, `{"id" : "i","x": 1e5}`},
		"topic, at the end":             {`{"id":"i","topic":null}`, `{"id":"i"}`},
		"topic alone":                   {`{"topic":"t"}`, `{}`},
		"topic, in another case":        {`{"TOPIC":1,"Topic":2,"id":"i"}`, `{"id":"i"}`},
		"topic, escaped":                {`{"\u0074op\u0069c":"t","id":"i"}`, `{"id":"i"}`},
		"topics stays":                  {`{"topics":1,"topic":2}`, `{"topics":1}`},
		"metadataVersion 1":             {`{"metadataVersion":"1"}`, `{"metadataVersion":"1"}`},
		"metadataVersion 1 beside":      {`{"topic":1,"metadataVersion":"1"}`, `{"metadataVersion":"1"}`},
		"metadataVersion, another":      {`{"metadataVersion":"2","id":"i"}`, `{"id":"i"}`},
		"metadataVersion, a number":     {`{"metadataVersion":1,"id":"i"}`, `{"id":"i"}`},
		"metadataVersion, empty":        {`{"metadataVersion":"","id":"i"}`, `{"id":"i"}`},
		"metadataVersion, in each case": {`{"METADATAversion":"0","id":"i"}`, `{"id":"i"}`},
		"an escaped quote":              {`{"a\"topic":"\\","topic":"\"","b":"\\\""}`, `{"a\"topic":"\\","b":"\\\""}`},
		"empty":                         {`{}`, `{}`},
		"as Digital Twins writes it":    {`{"id":"i","data":{"topic":1},"metadataVersion":"1","topic":"/t"}`, `{"id":"i","data":{"topic":1},"metadataVersion":"1"}`},
		"in the other order":            {`{"data":{},"topic" : "a\\\"b" , "metadataVersion" : "1" }`, `{"data":{} , "metadataVersion" : "1" }`},
		"at the end, and nothing else":  {`{"metadataVersion":"1","topic":1}`, `{"metadataVersion":"1"}`},
		"inside of data":                {`{"data":{"a":1,"metadataVersion":"1","topic":"/t"}}`, `{"data":{"a":1,"metadataVersion":"1","topic":"/t"}}`},
		"white space":                   {"{\n\t\"topic\"\r:\n1\t,\n \"id\" :  2 \n}", `{"id" :  2}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := string(appendEvent([]byte("before"), []byte(test.doc))); got != "before"+test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// members decodes an object as encoding/json does, members one by one.
func members(t *testing.T, doc []byte) (names []string, values []any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(doc)))
	d.UseNumber()
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return nil, nil
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value any
		if err := d.Decode(&value); err != nil {
			t.Fatal(err)
		}
		names, values = append(names, name.(string)), append(values, value)
	}
	return names, values
}

// What is sent is valid JSON, and the original less what Event Grid refuses.
func FuzzAppendEvent(f *testing.F) {
	for _, doc := range []string{
		`{"topic":"t","id":"i","data":{"topic":[1,{"x":"]}"}]},"metadataVersion":"1"}`,
		`{"\u0054OPIC":"\\","a":"\"","metadataVersion":"\u0031"}`, `{"ToPiC":1}`, "{ }", `{"a":{},"topic":[],"b":[[]]}`,
	} {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		doc = jsonwalk.Trim(doc)
		if !json.Valid(doc) || !utf8.Valid(doc) || doc[0] != '{' {
			return
		}
		got := appendEvent(nil, doc)
		if !json.Valid(got) {
			t.Fatalf("%s became %s", doc, got)
		}
		var wantNames []string
		var wantValues []any
		names, values := members(t, doc)
		_, atEnd := topicAtEnd(doc)
		for i, name := range names {
			// Whether a key is meant is encoding/json's to say.
			var is struct {
				Topic           *json.RawMessage `json:"topic"`
				MetadataVersion *json.RawMessage `json:"metadataVersion"`
			}
			key, err := json.Marshal(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal([]byte("{"+string(key)+":0}"), &is); err != nil {
				t.Fatal(err)
			}
			if atEnd && i < len(names)-2 {
				// It stays: see appendEvent.
			} else if is.Topic != nil || is.MetadataVersion != nil && values[i] != "1" {
				continue
			}
			wantNames, wantValues = append(wantNames, name), append(wantValues, values[i])
		}
		gotNames, gotValues := members(t, got)
		if strings.Contains(string(doc), `\u00`) && len(gotNames) < len(wantNames) {
			return // "\u0031" for "1" is taken out, which Event Grid allows as well
		}
		if !reflect.DeepEqual(gotNames, wantNames) || !reflect.DeepEqual(gotValues, wantValues) {
			t.Fatalf("%s became %s", doc, got)
		}
	})
}

func BenchmarkAppendEvent(b *testing.B) {
	for name, doc := range map[string]string{
		"with topic":    `{"id":"60bf5336-2929-45b4-bb4c-b45699dfe95f","subject":"SensorChange","data":{"Type":"Classic","DataType":"Motion","Id":"60bf5336-2929-45b4-bb4c-b45699dfe95f","Value":"False","PreviousValue":"True","EventTimestamp":"2018-04-17T17:46:15.4964262Z","MessageType":"sensor","Properties":{"ms-client-request-id":"c9e576b7-5eea-4f61-8617-92a57add5179"}},"eventType":"SensorChange","eventTime":"2018-04-17T17:46:18.5452993Z","dataVersion":"1","metadataVersion":"1","topic":"/subscriptions/T"}`,
		"without topic": `{"id":"60bf5336-2929-45b4-bb4c-b45699dfe95f","subject":"SensorChange","data":{"Type":"Classic","DataType":"Motion","Id":"60bf5336-2929-45b4-bb4c-b45699dfe95f","Value":"False","PreviousValue":"True","EventTimestamp":"2018-04-17T17:46:15.4964262Z","MessageType":"sensor","Properties":{"ms-client-request-id":"c9e576b7-5eea-4f61-8617-92a57add5179"}},"eventType":"SensorChange","eventTime":"2018-04-17T17:46:18.5452993Z","dataVersion":"1"}`,
	} {
		b.Run(name, func(b *testing.B) {
			event, buf := []byte(doc), make([]byte, 0, 2*len(doc))
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				buf = appendEvent(buf[:0], event)
			}
		})
	}
}
