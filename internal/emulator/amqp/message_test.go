package amqp

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	oracle "github.com/Azure/go-amqp"
)

// random generates values of every type that both codecs have.
type random struct{ *rand.Rand }

func (r random) text() string {
	b := make([]rune, r.IntN(300)/max(r.IntN(20), 1))
	for i := range b {
		b[i] = rune('a' + r.IntN(1000))
	}
	return string(b)
}

func (r random) bytes() []byte {
	b := make([]byte, r.IntN(600)/max(r.IntN(10), 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (r random) time() time.Time { return time.UnixMilli(r.Int64N(1 << 42)).UTC() }

func (r random) scalar() any {
	switch r.IntN(16) {
	case 0:
		return r.IntN(2) == 0
	case 1:
		return uint8(r.Uint32())
	case 2:
		return uint16(r.Uint32())
	case 3:
		return r.Uint32() >> r.IntN(32)
	case 4:
		return r.Uint64() >> r.IntN(64)
	case 5:
		return int8(r.Uint32())
	case 6:
		return int16(r.Uint32())
	case 7:
		return int32(r.Uint32()) >> r.IntN(32)
	case 8:
		return int64(r.Uint64()) >> r.IntN(64)
	case 9:
		return r.Float32()
	case 10:
		return r.Float64()
	case 11:
		return r.time()
	case 12:
		return r.bytes()
	case 13:
		var u oracle.UUID
		copy(u[:], r.bytes())
		return u
	case 14:
		return nil
	}
	return r.text()
}

func (r random) value(depth int) any {
	if depth == 0 || r.IntN(3) > 0 {
		return r.scalar()
	}
	if r.IntN(2) == 0 {
		v := make([]any, r.IntN(5))
		for i := range v {
			v[i] = r.value(depth - 1)
		}
		return v
	}
	m := map[any]any{}
	for range r.IntN(5) {
		m[r.text()] = r.value(depth - 1)
	}
	return m
}

func (r random) message() *oracle.Message {
	m := &oracle.Message{}
	if r.IntN(2) == 0 {
		m.Header = &oracle.MessageHeader{
			Durable: r.IntN(2) == 0, Priority: uint8(r.IntN(10)), TTL: time.Duration(r.IntN(1e6)) * time.Millisecond,
			FirstAcquirer: r.IntN(2) == 0, DeliveryCount: uint32(r.IntN(1000)),
		}
	}
	if r.IntN(2) == 0 {
		m.Annotations = oracle.Annotations{"x-opt-partition-key": r.text(), int64(5): r.scalar()}
	}
	if r.IntN(3) == 0 {
		m.DeliveryAnnotations = oracle.Annotations{"a": r.value(2)}
	}
	if r.IntN(5) > 0 {
		text := func() *string {
			if r.IntN(2) == 0 {
				return nil
			}
			s := "x" + r.text() // Message doesn't distinguish an absent text from an empty one
			return &s
		}
		moment := func() *time.Time {
			if r.IntN(2) == 0 {
				return nil
			}
			t := r.time()
			return &t
		}
		m.Properties = &oracle.MessageProperties{
			To: text(), Subject: text(), ReplyTo: text(), ContentType: text(), ContentEncoding: text(),
			AbsoluteExpiryTime: moment(), CreationTime: moment(), GroupID: text(), ReplyToGroupID: text(),
		}
		ids := []any{nil, "id-" + r.text(), r.Uint64(), oracle.UUID{1, 2, 3}, append([]byte{1}, r.bytes()...)}
		m.Properties.MessageID, m.Properties.CorrelationID = ids[r.IntN(5)], ids[r.IntN(5)]
		if r.IntN(2) == 0 {
			m.Properties.UserID = append([]byte{1}, r.bytes()...)
		}
		if r.IntN(2) == 0 {
			n := r.Uint32()
			m.Properties.GroupSequence = &n
		}
	}
	if r.IntN(3) > 0 {
		m.ApplicationProperties = map[string]any{}
		for i := range 1 + r.IntN(8) {
			m.ApplicationProperties[fmt.Sprint(i, r.text())] = r.scalar()
		}
	}
	switch r.IntN(3) {
	case 0:
		m.Value = r.value(3)
	default:
		m.Data = [][]byte{r.bytes()}
		if r.IntN(3) == 0 {
			m.Data = append(m.Data, r.bytes())
		}
	}
	if r.IntN(4) == 0 {
		m.Footer = oracle.Annotations{"f": r.scalar()}
	}
	return m
}

// plain converts both codecs' values to one form.
func plain(v any) any {
	switch v := v.(type) {
	case oracle.UUID:
		return UUID(v)
	case Symbol:
		return string(v)
	case time.Time:
		return v.UTC()
	case []byte:
		return append([]byte{}, v...)
	case []any:
		out := []any{}
		for _, x := range v {
			out = append(out, plain(x))
		}
		return out
	case map[string]any:
		out := map[any]any{}
		for k, x := range v {
			out[k] = plain(x)
		}
		return out
	case oracle.Annotations:
		return plain(map[any]any(v))
	case map[any]any:
		out := map[any]any{}
		for k, x := range v {
			out[plain(k)] = plain(x)
		}
		return out
	}
	return v
}

// flatOracle and flat return the parts that Message has, in that form.
func flatOracle(m *oracle.Message) map[string]any {
	out := map[string]any{
		"annotations": plain(m.Annotations), "application properties": plain(m.ApplicationProperties), "value": plain(m.Value),
	}
	p := m.Properties
	if p == nil {
		p = &oracle.MessageProperties{}
	}
	out["message id"], out["correlation id"], out["content type"] = plain(p.MessageID), plain(p.CorrelationID), ""
	if p.ContentType != nil {
		out["content type"] = *p.ContentType
	}
	return out
}

func flat(m *Message) map[string]any {
	return map[string]any{
		"annotations": plain(m.Annotations), "application properties": plain(m.ApplicationProperties), "value": plain(m.Value),
		"message id": plain(m.MessageID), "correlation id": plain(m.CorrelationID), "content type": m.ContentType,
	}
}

// Messages that go-amqp encodes are decoded to the same values.
func TestMessageAgainstGoAMQP(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := random{rand.New(rand.NewPCG(seed, 1))}
	for i := range 5000 {
		want := r.message()
		encoded, err := want.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeMessage(encoded)
		if err != nil {
			t.Fatalf("seed %d, message %d: %v", seed, i, err)
		}
		if a, b := flatOracle(want), flat(got); !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d, message %d:\n%v\ndecoded as\n%v", seed, i, a, b)
		}
		if id, err := MessageID(encoded); err != nil || !sameID(id, got) {
			t.Fatalf("seed %d, message %d: id %x, %v", seed, i, id, err)
		}
		if body, err := Body(encoded); err != nil || len(want.Data) > 0 && !bytes.Equal(body, bytes.Join(want.Data, nil)) {
			t.Fatalf("seed %d, message %d: body %x, %v", seed, i, body, err)
		}
		if k, ok := got.Annotations[Symbol("x-opt-partition-key")]; ok && Annotation(encoded, "x-opt-partition-key") != k {
			t.Fatalf("seed %d, message %d: partition key %v", seed, i, k)
		}
	}
}

// go-amqp decodes replies to the same values.
func TestReplyAgainstGoAMQP(t *testing.T) {
	now := time.UnixMilli(1_770_000_000_123).UTC()
	value := map[string]any{"text": "é", "count": int32(-7), "long": int64(1) << 40, "created": now, "empty": false, "full": true, "ids": []string{"0", ""}}
	for _, correlation := range []any{nil, "id", strings.Repeat("long", 100), uint64(0), uint64(7), uint64(1 << 40), UUID{1, 2}, []byte{3}} {
		m := &Message{CorrelationID: correlation, ApplicationProperties: map[string]any{"status-code": int32(202), "symbol": Symbol("s")}, Value: value}
		encoded, err := m.appendReply([]byte("before"))
		if err != nil {
			t.Fatal(err)
		}
		var back oracle.Message
		if err := back.UnmarshalBinary(encoded[len("before"):]); err != nil {
			t.Fatalf("%v: go-amqp: %v", correlation, err)
		}
		got := flatOracle(&back)
		if want := flat(m); !reflect.DeepEqual(got, want) {
			t.Errorf("%#v\ncame back as\n%#v", want, got)
		}
	}
	for _, m := range []*Message{{CorrelationID: 1.5}, {Value: uint8(1)}, {ApplicationProperties: map[string]any{"a": 1}}} {
		if _, err := m.appendReply(nil); err == nil {
			t.Errorf("%+v: encoded what no reply has", m)
		}
	}
}

func sameID(id []byte, m *Message) bool {
	switch want := m.MessageID.(type) {
	case nil:
		return len(id) == 0
	case string:
		return string(id) == want
	case []byte:
		return bytes.Equal(id, want)
	case UUID:
		return bytes.Equal(id, want[:])
	}
	return len(id) > 0
}

func TestArrays(t *testing.T) {
	m := &oracle.Message{Value: map[string]any{
		"s": []string{"a", "bc", ""}, "u": []uint32{1, 2, 70000}, "t": []int64{-1, 5}, "b": []bool{true, false}, "y": [][]byte{{1}, {}},
	}}
	encoded, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeMessage(encoded)
	if err != nil {
		t.Fatal(err)
	}
	want := map[any]any{
		"s": []any{"a", "bc", ""}, "u": []any{uint32(1), uint32(2), uint32(70000)}, "t": []any{int64(-1), int64(5)},
		"b": []any{true, false}, "y": []any{[]byte{1}, []byte{}},
	}
	if !reflect.DeepEqual(got.Value, want) {
		t.Errorf("got %v", got.Value)
	}
}

// FuzzDecode decodes any input: it ends with a value or an error.
func FuzzDecode(f *testing.F) {
	r := random{rand.New(rand.NewPCG(1, 1))}
	for range 30 {
		b, err := r.message().MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x00, 0x53, 0x77, 0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40})
	f.Add([]byte{0x00, 0x53, 0x77, 0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff})
	f.Add(bytes.Repeat([]byte{0x00}, 100000))
	f.Fuzz(func(t *testing.T, b []byte) {
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
