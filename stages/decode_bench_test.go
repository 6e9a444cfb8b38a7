package stages

import (
	"testing"
	"unicode/utf8"

	"github.com/goccy/go-json"
)

// BenchmarkDecodeFloor is what BenchmarkDecode is held against: the codec's
// cheapest way to the same members of the same event, which aliases its bytes,
// and the check for UTF-8 that the codec leaves out.
//
//	go test -run '^$' -bench 'Decode(Floor)?$' -count 10 ./stages
func BenchmarkDecodeFloor(b *testing.B) {
	doc := sample(b)
	b.Run("plain", func(b *testing.B) { floor[plainEnvelope](b, doc) })
	b.Run("correlated", func(b *testing.B) { floor[envelope](b, doc) })
}

func floor[T any](b *testing.B, doc []byte) {
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	var e T
	for b.Loop() {
		if err := json.UnmarshalOf(doc, &e, json.DecodeNoCopyString()); err != nil || !utf8.Valid(doc) {
			b.Fatal(err)
		}
	}
}
