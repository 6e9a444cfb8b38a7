package term

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestOutput(t *testing.T) {
	for in, want := range map[string]string{
		"plain, ünïcode 日本語 🙂\n\tnext":    "plain, ünïcode 日本語 🙂\n\tnext",
		"\x1b[2J\x07\r\x00\x7f":           `\u001b[2J\u0007\u000d\u0000\u007f`,
		"\u009b31m \u202e \u2028 \u200b":  `\u009b31m \u202e \u2028 \u200b`,
		"\U000e0041":                      `\udb40\udc41`,
		"\x9b \xff \xe2\x80 \xf0\x9f\x99": `\ufffd \ufffd \ufffd\ufffd `, // the last may still become a character
		"\uFFFD":                          "\uFFFD",
	} {
		var whole, split strings.Builder
		out := NewOutput(&whole)
		if n, err := out.Write([]byte(in)); n != len(in) || err != nil {
			t.Errorf("%q: %d, %v", in, n, err)
		}
		bytewise := NewOutput(&split)
		for i := range len(in) {
			if n, err := bytewise.Write([]byte{in[i]}); n != 1 || err != nil {
				t.Errorf("%q: %d, %v", in, n, err)
			}
		}
		if whole.String() != want || split.String() != want {
			t.Errorf("%q is %q, and in pieces %q; want %q", in, whole.String(), split.String(), want)
		}
	}
}

// JSON stays JSON, and says the same.
func TestOutputOfJSON(t *testing.T) {
	const text = "\u009b\u202e\U000e0041\u2028\x7f ü 🙂 \u200b"
	var b strings.Builder
	if err := PrintJSON(NewOutput(&b), text); err != nil {
		t.Fatal(err)
	}
	var got string
	if err := json.Unmarshal([]byte(b.String()), &got); err != nil || got != text {
		t.Errorf("%s is %q, %v", b.String(), got, err)
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	table := NewTable(&b)
	table.Row("A", "B")
	table.Row("one\nrow\tstill", "x")
	if err := table.Flush(); err != nil || b.String() != "A                        B\none\\u000arow\\u0009still  x\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestLineIsPrintable(t *testing.T) {
	if got := (Line{Style("").Text("a\x1b[2J\tb\u009b\u202e")}).cut(80); got != "a\uFFFD[2J b\uFFFD\uFFFD" {
		t.Errorf("%q", got)
	}
}
