package stages

import (
	"testing"
	"unicode/utf8"

	"github.com/goccy/go-json"
)

// BenchmarkDecodeFloor is what BenchmarkDecode is held against: the codec's
// cheapest way to three members of the same event, which aliases its bytes,
// and the check for UTF-8 that the codec leaves out.
//
//	go test -run '^$' -bench 'Decode(Floor)?$' -count 10 ./stages
func BenchmarkDecodeFloor(b *testing.B) {
	doc := sample(b)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	var e struct {
		ID        string `json:"id"`
		Subject   string `json:"subject"`
		EventType string `json:"eventType"`
	}
	for b.Loop() {
		if err := json.UnmarshalOf(doc, &e, json.DecodeNoCopyString()); err != nil || !utf8.Valid(doc) {
			b.Fatal(err)
		}
	}
}
