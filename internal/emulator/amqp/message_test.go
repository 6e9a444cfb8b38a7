package amqp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	oracle "github.com/Azure/go-amqp"
)

// random generates messages with values of every type that go-amqp encodes.
type random struct{ *rand.Rand }

func (r random) text() string {
	b := make([]rune, r.IntN(300)/max(r.IntN(20), 1))
	for i := range b {
		b[i] = rune('a' + r.IntN(1000))
	}
	return string(b)
}

func (r random) value() any {
	values := []any{
		nil, true, uint8(7), uint16(700), r.Uint32() >> r.IntN(32), r.Uint64() >> r.IntN(64), int8(-7), int16(-700),
		int32(r.Uint32()) >> r.IntN(32), int64(r.Uint64()) >> r.IntN(64), r.Float32(), r.Float64(),
		time.UnixMilli(r.Int64N(1 << 42)), []byte(r.text()),
		oracle.UUID{1, 2},
		r.text(),
		[]string{"a", r.text()},
		[]any{r.text(), []any{int32(1)}},
		map[any]any{r.text(): map[any]any{"a": r.text()}},
	}
	return values[r.IntN(len(values))]
}

func (r random) message() *oracle.Message {
	m := &oracle.Message{}
	half := func() bool { return r.IntN(2) == 0 }
	if half() {
		m.Header = &oracle.MessageHeader{Durable: half(), Priority: uint8(r.IntN(10)), DeliveryCount: uint32(r.IntN(1000))}
	}
	if half() {
		m.DeliveryAnnotations = oracle.Annotations{"a": r.value()}
	}
	if half() {
		m.Annotations = oracle.Annotations{"x-opt-partition-key": r.text(), int64(5): r.value()}
	}
	if half() {
		ids := []any{nil, "id-" + r.text(), r.Uint64(), oracle.UUID{1, 2, 3}, []byte("1" + r.text())}
		contentType := "x" + r.text()
		m.Properties = &oracle.MessageProperties{
			MessageID: ids[r.IntN(5)], CorrelationID: ids[r.IntN(5)], UserID: []byte(r.text()), ContentType: &contentType,
		}
	}
	if half() {
		m.ApplicationProperties = map[string]any{}
		for i := range 1 + r.IntN(8) {
			m.ApplicationProperties[fmt.Sprint(i, r.text())] = r.value()
		}
	}
	m.Data = [][]byte{[]byte(r.text()), []byte(r.text())}[:1+r.IntN(2)]
	if r.IntN(4) == 0 {
		m.Data, m.Value = nil, r.text()
	}
	if half() {
		m.Footer = oracle.Annotations{"f": r.value()}
	}
	return m
}

// What is read without decoding is what go-amqp encoded.
func TestWalkAgainstGoAMQP(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := random{rand.New(rand.NewPCG(seed, 1))}
	for i := range 5000 {
		m := r.message()
		encoded, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var wantID []byte
		if m.Properties != nil {
			switch id := m.Properties.MessageID.(type) {
			case string:
				wantID = []byte(id)
			case []byte:
				wantID = id
			case oracle.UUID:
				wantID = id[:]
			}
		}
		id, err := MessageID(encoded)
		if m.Properties != nil {
			if _, number := m.Properties.MessageID.(uint64); number && len(id) > 0 {
				wantID = id // see MessageID
			}
		}
		if err != nil || !bytes.Equal(id, wantID) {
			t.Fatalf("seed %d, message %d: id %x, %v", seed, i, id, err)
		}
		wantBody := bytes.Join(m.Data, nil)
		if text, ok := m.Value.(string); ok {
			wantBody = []byte(text)
		}
		if body, err := Body(encoded); err != nil || !bytes.Equal(body, wantBody) {
			t.Fatalf("seed %d, message %d: body %x, %v", seed, i, body, err)
		}
		if _, err := DecodeMessage(encoded); err != nil {
			t.Fatalf("seed %d, message %d: %v", seed, i, err)
		}
		wantKey, _ := m.Annotations["x-opt-partition-key"].(string)
		if key := Annotation(encoded, "x-opt-partition-key"); key != wantKey {
			t.Fatalf("seed %d, message %d: partition key %q", seed, i, key)
		}
	}
}

// FuzzDecode reads any input: it ends with a value or an error.
func FuzzDecode(f *testing.F) {
	r := random{rand.New(rand.NewPCG(1, 1))}
	for range 30 {
		b, err := r.message().MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x00, 0x53, 0x77, 0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0x00, 0x53, 0x77, 0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40})
	// Annotations, a value and a footer with binary, or the empty list, for a key.
	f.Add([]byte{0x00, 0x53, 0x72, 0xc1, 5, 2, 0xa0, 1, 'k', 0x40})
	f.Add([]byte{0x00, 0x53, 0x77, 0xc1, 5, 2, 0xa0, 1, 'k', 0x40})
	f.Add([]byte{0x00, 0x53, 0x78, 0xc1, 3, 2, 0x45, 0x40})
	for _, nested := range [][]byte{{0}, {0xc0, 250, 1}, {0xd0, 0, 15, 0, 0, 0, 0, 0, 1}} {
		f.Add(append([]byte{0x00, 0x53, 0x77}, bytes.Repeat(nested, 1_000_000/len(nested))...))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = MessageID(b)
		_, _ = Body(b)
		_ = Annotation(b, "x")
		_ = EachMessage(BatchFormat, b, func(m []byte) { _, _ = MessageID(m) })
		d := decoder{b: b}
		_, fields, _ := d.composite()
		_, fields2 := fields, fields
		decodeTransfer(&fields)
		decodeAttach(&fields2)
		_, _ = DecodeMessage(b)
	})
}
