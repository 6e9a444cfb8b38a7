package emulator

import (
	"encoding/json"
	"testing"
)

// The scanner takes exactly what encoding/json takes.
func FuzzScanner(f *testing.F) {
	for _, s := range []string{
		`{"a":[1,-2.5e+3,true,false,null,"x\u00e9\n"]}`, `[]`, `{}`, `""`, `01`, `1.`, `-`, `"\x"`, `[1,]`, `{"a"}`, `{"a":1,}`,
		"\"\t\"", ` 1 `, `1 2`, ``, `tru`, `nul`, `[[[`, "\"\xff\"", `{"a":{"a":{}}}`, `1e`, `-0`, `"\u12"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := scanner{b: b}
		err := s.value(0)
		if err == nil {
			err = s.end()
		}
		if json.Valid(b) != (err == nil) {
			t.Errorf("%q: encoding/json says %v, the scanner %v", b, json.Valid(b), err)
		}
	})
}
