package filter

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func text(s string) Operand    { return Operand{Kind: Text, Text: s} }
func number(n float64) Operand { return Operand{Kind: Number, Number: n} }
func yes(b bool) Operand       { return Operand{Kind: Bool, Bool: b} }

func field(f Field, path ...Step) Operand {
	return Operand{Kind: Reference, Field: f, Path: path}
}

func numeric(o Operand) Operand {
	o.AsNumber = true
	return o
}

func member(name string) Step { return Step{Name: name, Index: NoIndex} }
func element(i int) Step      { return Step{Index: i} }

func test(op Op, left, right Operand) *Expr { return &Expr{Op: op, Left: left, Right: right} }
func logic(op Op, args ...*Expr) *Expr      { return &Expr{Op: op, Args: args} }

func TestParse(t *testing.T) {
	y := field(Body, member("y"))
	a, b, c := test(Equal, y, number(1)), test(Equal, y, number(2)), test(Equal, y, number(3))
	tests := map[string]struct {
		source    string
		want      *Expr
		canonical string // "" for source itself
	}{
		"the successor's example": {
			"type = 'SensorChange' AND $body.y > 3",
			logic(And, test(Equal, field(Type), text("SensorChange")), test(Greater, y, number(3))), "",
		},
		"true":  {"true", &Expr{Op: Const, Value: true}, ""},
		"FALSE": {" FALSE ", &Expr{Op: Const}, "false"},
		"every comparison": {
			"$body.y=1 or $body.y!=1 or $body.y<1 or $body.y<=1 or $body.y>1 or $body.y>=1",
			logic(Or,
				a, test(NotEqual, y, number(1)), test(Less, y, number(1)),
				test(LessOrEqual, y, number(1)), test(Greater, y, number(1)), test(GreaterOrEqual, y, number(1))),
			"$body.y = 1 OR $body.y != 1 OR $body.y < 1 OR $body.y <= 1 OR $body.y > 1 OR $body.y >= 1",
		},
		"functions": {
			"STARTS_WITH(subject,'a') AND ends_with($body.y, 'b') AND Contains( 'abc' , $body.y )",
			logic(And, test(StartsWith, field(Subject), text("a")), test(EndsWith, y, text("b")), test(Contains, text("abc"), y)),
			"STARTS_WITH(subject, 'a') AND ENDS_WITH($body.y, 'b') AND CONTAINS('abc', $body.y)",
		},
		"AND binds closer than OR": {
			"$body.y = 1 OR $body.y = 2 AND $body.y = 3", logic(Or, a, logic(And, b, c)), "",
		},
		"parentheses": {
			"($body.y = 1 OR ($body.y = 2)) AND $body.y = 3", logic(And, logic(Or, a, b), c),
			"($body.y = 1 OR $body.y = 2) AND $body.y = 3",
		},
		"one form of a chain": {
			"$body.y = 1 AND ($body.y = 2 AND $body.y = 3)", logic(And, a, b, c),
			"$body.y = 1 AND $body.y = 2 AND $body.y = 3",
		},
		"NOT binds closest": {
			"NOT $body.y = 1 AND not not ($body.y = 2 or true)",
			logic(And, logic(Not, a), logic(Not, logic(Not, logic(Or, b, &Expr{Op: Const, Value: true})))),
			"NOT $body.y = 1 AND NOT NOT ($body.y = 2 OR true)",
		},
		"literals": {
			"$body.y = -0.5e-3 OR $body.y = true OR $body.y != null OR 3 < $body.y OR $body.y = 1e+22",
			logic(Or, test(Equal, y, number(-0.0005)), test(Equal, y, yes(true)), test(NotEqual, y, Operand{}),
				test(Less, number(3), y), test(Equal, y, number(1e22))),
			"$body.y = -0.0005 OR $body.y = true OR $body.y != null OR 3 < $body.y OR $body.y = 1e+22",
		},
		"quotes": {
			`$body.y = 'it''s' OR $body.y = 'it\'s' OR $body.y = 'C:\\x' OR $body.y = '' OR $body.y = '"'`,
			logic(Or, test(Equal, y, text("it's")), test(Equal, y, text("it's")), test(Equal, y, text(`C:\x`)),
				test(Equal, y, text("")), test(Equal, y, text(`"`))),
			`$body.y = 'it''s' OR $body.y = 'it''s' OR $body.y = 'C:\\x' OR $body.y = '' OR $body.y = '"'`,
		},
		"the fields and their other names": {
			"eventType = 'UdfCustom' OR SUBJECT = '' OR Id = '' OR eventTime = '' OR time = '' OR dataversion = '' OR metadataVersion = '' OR topic = ''",
			logic(Or, test(Equal, field(Type), text("UdfCustom")), test(Equal, field(Subject), text("")), test(Equal, field(ID), text("")),
				test(Equal, field(Time), text("")), test(Equal, field(Time), text("")), test(Equal, field(DataVersion), text("")),
				test(Equal, field(MetadataVersion), text("")), test(Equal, field(Topic), text(""))),
			"type = 'UdfCustom' OR subject = '' OR id = '' OR time = '' OR time = '' OR dataVersion = '' OR metadataVersion = '' OR topic = ''",
		},
		"paths": {
			"$body = 1 OR $Body.Value.$metadata.and[0]['odd ''key''']['plain'][12].größe-2 = $body[3]",
			logic(Or, test(Equal, field(Body), number(1)), test(Equal,
				field(Body, member("Value"), member("$metadata"), member("and"), element(0), member("odd 'key'"), member("plain"), element(12), member("größe-2")),
				field(Body, element(3)))),
			"$body = 1 OR $body.Value.$metadata.and[0]['odd ''key'''].plain[12].größe-2 = $body[3]",
		},
		"text as a number": {
			"as_number( $body.y ) > 3 AND 1 = AS_NUMBER(dataVersion)",
			logic(And, test(Greater, numeric(y), number(3)), test(Equal, number(1), numeric(field(DataVersion)))),
			"AS_NUMBER($body.y) > 3 AND 1 = AS_NUMBER(dataVersion)",
		},
		"white space": {
			"\t$body.y\n=\r\n1\u00a0", a, "$body.y = 1",
		},
		"an empty name": {"$body[''] = 1", test(Equal, field(Body, member("")), number(1)), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(test.source)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("parsed as %s, want %s", got, test.want)
			}
			want := test.canonical
			if want == "" {
				want = test.source
			}
			if got.String() != want {
				t.Errorf("printed as\n%s, want\n%s", got, want)
			}
		})
	}
}

// Each mistake, with the column where the caret stands and a part of what is
// said about it.
func TestParseErrors(t *testing.T) {
	tests := []struct {
		source  string
		column  int
		message string
	}{
		{"", 1, "the filter is empty"},
		{" \n ", 1, "the filter is empty"},
		{"type", 5, "expected =, !=, <, <=, > or >=, the filter ends here"},
		{"$body.on AND true", 10, "is tested with = true), found AND"},
		{"type = ", 8, "expected a value after =, the filter ends here"},
		{"type = AND", 8, "expected a value after =, found AND"},
		{"type = SensorChange", 8, "SensorChange is not known; text is in single quotes"},
		{"type = 'SensorChanged'", 8, "'SensorChanged' is not an event type; those are TopologyOperation, "},
		{"'sensorchange' != eventType", 1, "'sensorchange' is not an event type"},
		{`type = "SensorChange"`, 8, "text is in single quotes"},
		{"type = 'SensorChange", 8, "no closing quote"},
		{`subject = 'a\tb'`, 13, `a backslash in text is written \\`},
		{"subject = 3", 11, "subject is text: write '3'"},
		{"true = dataVersion", 1, "dataVersion is text: write 'true'"},
		{"subject.x = 'a'", 1, "subject is text and has no members; the event's data is $body"},
		{"Data.x = 'a'", 1, "the event's data is written $body"},
		{"source = 'a'", 1, "source is a CloudEvents field"},
		{"$body.x == 3", 9, "write = for =="},
		{"$body.x <> 3", 9, "write != for <>"},
		{"!true", 1, "write NOT for !"},
		{"true && false", 6, "write AND for &&"},
		{"true || false", 6, "write OR for ||"},
		{"true false", 6, "expected AND, OR or the end, found false"},
		{"true)", 5, "expected AND, OR or the end, found )"},
		{"(true", 6, "expected AND, OR or ), the filter ends here"},
		{"()", 2, "expected a comparison, such as type = 'SensorChange', found )"},
		{"AND true", 1, "expected a comparison"},
		{"true OR", 8, "expected a comparison"},
		{"1 = 1", 1, "one of the two must be a field"},
		{"CONTAINS('a', 'b')", 10, "one of the two must be a field"},
		{"$body.x < true", 11, "< is for numbers and text: true only goes with = and !="},
		{"null >= $body.x", 1, ">= is for numbers and text"},
		{"STARTS_WITH subject", 13, "expected ( after STARTS_WITH, found subject"},
		{"STARTS_WITH(, 'x')", 13, "expected a field after STARTS_WITH("},
		{"STARTS_WITH(subject)", 20, "expected a comma and the text to look for, found )"},
		{"STARTS_WITH(subject, )", 22, "expected the text to look for"},
		{"STARTS_WITH(subject, 'x'", 25, "expected ), the filter ends here"},
		{"CONTAINS($body.x, 3)", 19, "CONTAINS is about text: write '3'"},
		{"startswith(subject, 'x')", 1, "write STARTS_WITH or ENDS_WITH"},
		{"$body.x IS NULL", 9, "write … = null or … != null"},
		{"$body.x IN ('a')", 9, "IN is not known; write it with =, OR"},
		{"$body. = 3", 7, "expected a name after the dot"},
		{"$body.a b = 3", 9, "b is not known"},
		{"$body[x] = 3", 7, "expected a 'name' in quotes or an index from 0"},
		{"$body[-1] = 3", 7, "expected a 'name' in quotes or an index from 0"},
		{"$body[0 = 3", 8, "expected ]"},
		{"$body['a = 3", 7, "no closing quote"},
		{"$body[1000000] = 3", 7, "an index is at most 999999"},
		{"$body[99999999999999999999] = 3", 7, "an index is at most 999999"},
		{"$body" + strings.Repeat(".a", 33) + " = 3", 1, "more than 32 steps"},
		{"AS_NUMBER $body.x = 3", 11, "expected ( after AS_NUMBER"},
		{"AS_NUMBER(3) = 3", 11, "expected a field after AS_NUMBER("},
		{"AS_NUMBER(AS_NUMBER($body.x)) = 3", 11, "expected a field after AS_NUMBER("},
		{"AS_NUMBER(", 11, "expected a field after AS_NUMBER("},
		{"AS_NUMBER($body.x = 3", 19, "expected ) after the field"},
		{"AS_NUMBER($body.x) = '3'", 22, "AS_NUMBER($body.x) is a number, '3' is none"},
		{"AS_NUMBER($body.x) != null", 23, "AS_NUMBER($body.x) is a number, null is none"},
		{"CONTAINS(AS_NUMBER($body.x), '3')", 10, "CONTAINS is about text, and AS_NUMBER makes a number of it"},
		{"$body.x = 1e999", 11, "this number is too large"},
		{"$body.x = 0x10", 11, "0x10 is not a number"},
		{"$body.x = 1_000", 11, "1_000 is not a number"},
		{"$body.x = +1", 11, "+1 is not a number"},
		{"$body.x = .5", 11, ".5 is not a number"},
		{"$body.x = 5.", 11, "5. is not a number"},
		{"$body.x = -inf", 11, "-inf is not a number"},
		{"$body.x = 2024-01-01", 11, "is not a number"},
		{"$body.x # 3", 9, "'#' has no meaning here"},
		{"größe = 3", 1, "größe is not known"},
		{"$body.größe = § ", 15, "'§' has no meaning here"},
		{strings.Repeat("(", 33) + "true" + strings.Repeat(")", 33), 33, "go more than 32 deep"},
		{strings.Repeat("NOT ", 33) + "true", 129, "go more than 32 deep"},
		{"subject = '" + strings.Repeat("x", 4096) + "'", 1, "longer than 4096 bytes"},
		{"subject = '\xff'", 1, "not valid UTF-8"},
		{"subject = 'a\n' ANDY", 16, "ANDY is not known"},
	}
	for _, test := range tests {
		_, err := Parse(test.source)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.60q: %v, want an *Error", test.source, err)
			continue
		}
		if e.Column != test.column || !strings.Contains(e.Message, test.message) {
			t.Errorf("%.60q: %v, want column %d and %q", test.source, e, test.column, test.message)
		}
		if strings.ContainsAny(e.Error(), "\r\n\t") || len(e.Error()) > 250 {
			t.Errorf("%.60q: not one short line: %q", test.source, e.Error())
		}
		if lines := strings.Split(e.Caret(), "\n"); len(lines) != 2 || !strings.HasSuffix(lines[1], "^") ||
			strings.ContainsFunc(e.Caret(), func(r rune) bool { return r != '\n' && r < ' ' }) {
			t.Errorf("%.60q: caret form\n%s", test.source, e.Caret())
		}
	}
	for _, deepest := range []string{
		strings.Repeat("(", 32) + "true" + strings.Repeat(")", 32),
		"$body" + strings.Repeat(".a", 32) + " = 3",
		"subject = '" + strings.Repeat("x", 4096-12) + "'",
	} {
		if _, err := Parse(deepest); err != nil {
			t.Errorf("%.30s…: %v, but it is within the limits", deepest, err)
		}
	}
}

func TestCaret(t *testing.T) {
	long := strings.Repeat("$body.ä = 1 OR ", 10)
	tests := []struct{ source, want string }{
		{"type = AND", "type = AND\n       ^"},
		{"subject\t=\nAND", "subject = AND\n          ^"},
		{"$body.größe = AND", "$body.größe = AND\n              ^"},
		{"(true", "(true\n     ^"},
		{long + "x" + long, long[len(long)-64:] + "x" + strings.TrimSpace(long[:63]) + "\n" + strings.Repeat(" ", 60) + "^"},
	}
	for _, test := range tests {
		_, err := Parse(test.source)
		var e *Error
		if !errors.As(err, &e) || e.Caret() != test.want {
			t.Errorf("%q:\n%s\nwant\n%s", test.source, e.Caret(), test.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, source := range []string{
		"type = 'SensorChange' AND $body.y > 3",
		"NOT (STARTS_WITH(subject, 'a''b') OR $body['x y'][0].$z != null)",
		`$body.a <= -1.5e3 and (time > '2024' or $body = 'it\'s') `,
		"CONTAINS('abc', $body.y) OR $body.x = $body.z OR false",
		"AS_NUMBER($body.Value) >= 21.5",
		"((((true)))) AND NOT NOT true",
	} {
		f.Add(source)
	}
	f.Fuzz(func(t *testing.T, source string) {
		e, err := Parse(source)
		if err != nil {
			var at *Error
			if !errors.As(err, &at) || at.Column < 1 || at.Column > utf8.RuneCountInString(source)+1 {
				t.Fatalf("%q: %v", source, err)
			}
			if !utf8.ValidString(source) {
				return
			}
			if strings.ContainsAny(at.Error(), "\r\n") || strings.Count(at.Caret(), "\n") != 1 {
				t.Fatalf("%q: not one line: %q", source, at.Error())
			}
			return
		}
		printed := e.String()
		if len(printed) > maxLength {
			return // a space here and there can be one too many
		}
		again, err := Parse(printed)
		if err != nil {
			t.Fatalf("%q was printed as %q: %v", source, printed, err)
		}
		if !reflect.DeepEqual(e, again) || again.String() != printed {
			t.Fatalf("%q was printed as %q, which is %q", source, printed, again)
		}
	})
}
