package jsonwalk

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

var docs = []string{
	`{}`, `[]`, ` { } `, ` [ ] `, `null`, `"x"`, `-1.5e+3`, `true`, `-0`, ` 1 `, "\"\xff\"",
	`{"a":1,"b":[1,2,{"c":"}"}],"d":{"e":"]"}}`,
	"\t{\n\"a\" :\r 1 ,\n \"b\":\t[ 1 , [ ] ] }\n",
	`{"a\"b":"\\","\\":"\"","c":"\\\"{["}`,
	`{"\u0061\u00e9":"\u0022","topic":1,"topic":2,"TOPIC":3,"t\u006fpic":4}`,
	`{"":"","a":"","b":null,"c":true,"d":false}`,
	`[1,"a,b",[2,[3]],{"x":[4]},null , "\\\\" ]`,
	`[[[[]]],{"a":{"b":{}}}]`,
	`{"\\u0074opic":1,"ſubject":2,"Kelvin":3}`,
	`{"a":"` + strings.Repeat(`\\`, 99) + `\""}`,
}

var invalid = []string{
	``, ` `, `01`, `1.`, `-`, `1e`, `1e+`, `.5`, `+1`, `1 2`, `tru`, `nul`, `falsy`, `x`,
	`[`, `[1,]`, `[1`, `[[[`, `[1}`, `{`, `{"a"}`, `{"a":1,}`, `{"a":1]`, `{"a" 1}`, `{a:1}`, `{"a":}`, `{"a":1`,
	`"`, `"\`, `"\x"`, `"\u12"`, `"\u123`, "\"\t\"",
}

type part struct{ key, value string }

// parts are the members of an object or the elements of an array, as
// encoding/json reads them.
func parts(t *testing.T, doc []byte) (got []part) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	open, err := d.Token()
	if err != nil {
		t.Fatal(err)
	}
	if open != json.Delim('{') && open != json.Delim('[') {
		return nil
	}
	for d.More() {
		var p part
		if open == json.Delim('{') {
			key, err := d.Token()
			if err != nil {
				t.Fatal(err)
			}
			p.key = key.(string)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		p.value = string(raw)
		got = append(got, p)
	}
	return got
}

// check compares everything that walks JSON with encoding/json.
func check(t *testing.T, doc []byte) {
	t.Helper()
	want := parts(t, doc)
	var got []part
	Members(doc, func(m Member) bool {
		p := part{value: string(doc[m.Start:m.End])}
		if m.KeyEnd > 0 {
			if err := json.Unmarshal(doc[m.KeyStart-1:m.KeyEnd+1], &p.key); err != nil {
				t.Fatalf("%s: key %q: %v", doc, doc[m.KeyStart:m.KeyEnd], err)
			}
		}
		got = append(got, p)
		return true
	})
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %q, want %q", doc, got, want)
	}
	if trimmed := Trim(doc); string(trimmed) != strings.Trim(string(doc), " \t\r\n") {
		t.Fatalf("%q trimmed is %q", doc, trimmed)
	}

	if bytes.TrimLeft(doc, " \t\r\n")[0] != '{' {
		return
	}
	checkBackwards(t, doc)
	var decoded struct {
		Topic   json.RawMessage `json:"topic"`
		Subject json.RawMessage `json:"subject"`
		Data    json.RawMessage `json:"data"`
		K       json.RawMessage `json:"kelvin"`
	}
	if err := json.Unmarshal(doc, &decoded); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"topic": decoded.Topic, "subject": decoded.Subject, "data": decoded.Data, "kelvin": decoded.K} {
		if got := FindMember(doc, name); string(got) != string(want) || (got == nil) != (want == nil) {
			t.Fatalf("%s: %s is %s, want %s", doc, name, got, want)
		}
	}
}

// checkBackwards compares the steps back from an object's end with the walk
// from its front.
func checkBackwards(t *testing.T, doc []byte) {
	t.Helper()
	var walk []Member
	Members(doc, func(m Member) bool {
		walk = append(walk, m)
		return true
	})
	end := len(Trim(doc)) - 1 + bytes.IndexByte(doc, '{') // of white space, only what is in front shifts it
	for i, want := range slices.Backward(walk) {
		got, comma := MemberBefore(doc, end)
		inside := doc[want.Start] == '{' || doc[want.Start] == '['
		if comma < 0 {
			if i > 0 && !inside {
				t.Fatalf("%s: member %d isn't found from behind", doc, i)
			}
			return
		}
		if got != want || i == 0 || inside || doc[comma] != ',' || comma < walk[i-1].End || comma > want.KeyStart {
			t.Fatalf("%s: member %d from behind is %v after %d, want %v", doc, i, got, comma, want)
		}
		end = comma
	}
	if got, comma := MemberBefore(doc, end); comma >= 0 && len(walk) == 0 {
		t.Fatalf("%s: has no member, and %v from behind", doc, got)
	}
}

// checkValid compares Validate and IsNumber with encoding/json.
func checkValid(t *testing.T, doc []byte) {
	t.Helper()
	want := json.Valid(doc)
	if err := Validate(doc); (err == nil) != want {
		t.Fatalf("%q: encoding/json accepts it is %v, and Validate returns %v", doc, want, err)
	}
	number := want && strings.ContainsAny(string(doc[:1]), "-0123456789") && !strings.ContainsAny(string(doc), " \t\r\n")
	if IsNumber(doc) != number {
		t.Fatalf("%q: IsNumber is %v", doc, !number)
	}
}

func TestWalk(t *testing.T) {
	for _, doc := range docs {
		check(t, []byte(doc))
		checkValid(t, []byte(doc))
	}
	for _, doc := range invalid {
		checkValid(t, []byte(doc))
	}
	nested := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	if Validate(nested(maxDepth)) != nil || Validate(nested(maxDepth+1)) == nil {
		t.Errorf("not %d levels are the most", maxDepth)
	}
}

func FuzzWalk(f *testing.F) {
	for _, doc := range docs {
		f.Add([]byte(doc))
	}
	for _, doc := range invalid {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		checkValid(t, doc)
		if json.Valid(doc) && utf8.Valid(doc) {
			check(t, doc)
			return
		}
		// Not its business, but no reason to run on or to panic.
		Members(doc, func(Member) bool { return true })
		MemberBefore(doc, len(doc))
	})
}

func TestWalkStops(t *testing.T) {
	n := 0
	Members([]byte(`{"a":1,"b":2,"c":3}`), func(Member) bool { n++; return n < 2 })
	Members([]byte(`[1,2,3]`), func(Member) bool { n++; return n < 4 })
	if n != 4 {
		t.Errorf("yielded %d times, want two each", n)
	}
}

func TestKeyIs(t *testing.T) {
	cases := []struct {
		key  string
		want bool
	}{
		{"topic", true},
		{"TOPIC", true},
		{`t\u006fpic`, true},
		{`\u0054OPIC`, true},
		{"topics", false},
		{"topi", false},
		{"", false},
		{`top\\ic`, false},
		{`topic\n`, false},
		{`\ud83d\ude00`, false},
		{`\"\/\b\f\r\t`, false},
	}
	for _, test := range cases {
		if got := KeyIs([]byte(test.key), "topic"); got != test.want {
			t.Errorf("KeyIs(%q) is %v", test.key, got)
		}
	}
	if !KeyIs([]byte("ſubject"), "subject") || !KeyIs([]byte("\u212aelvin"), "kelvin") {
		t.Error("the two letters that fold to ASCII don't")
	}
}

func TestFindMemberCannotGrowInto(t *testing.T) {
	doc := []byte(`{"data":1,"x":2}`)
	_ = append(FindMember(doc, "data"), "9"...)
	if string(doc) != `{"data":1,"x":2}` {
		t.Errorf("the document is now %s", doc)
	}
}

func TestUnescape(t *testing.T) {
	for _, s := range []string{
		``, `plain`, `\"\\\/\b\f\n\r\t`, `caf\u00e9 caf\u00E9 é`, `\u0000\uffff`, `a\\u0041`,
		`\ud83d\ude00`, `x\uD83D\uDE00y`, `\ud83d`, `\ud83d\u0041`, `\ude00\ud83d`, `\ud83d\ud83d\ude00`, `\ud83dx`, `\ud83d\n`, `\ud83d\"\\`,
	} {
		var want string
		if err := json.Unmarshal([]byte(`"`+s+`"`), &want); err != nil {
			t.Fatal(err)
		}
		if got := string(Unescape([]byte("before "), []byte(s))); got != "before "+want {
			t.Errorf("%s is %q, want %q", s, got, want)
		}
	}
}
