package event

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"twinegress/internal/heaptest"
)

func TestMessageID(t *testing.T) {
	hashed := func(id string) string {
		sum := sha256.Sum256([]byte(id))
		return hex.EncodeToString(sum[:])
	}
	long := strings.Repeat("t", 128)
	tests := map[string]struct {
		topic     string
		partition int32
		offset    int64
		index     int32
		want      string
	}{
		"a record":                    {"twins", 3, 41, NoIndex, "twins/3/41"},
		"an element":                  {"twins", 3, 41, 7, "twins/3/41/7"},
		"the first element":           {"twins", 3, 41, 0, "twins/3/41/0"},
		"large numbers":               {"twins", 1<<31 - 1, 1<<63 - 1, 1<<31 - 1, "twins/2147483647/9223372036854775807/2147483647"},
		"128 characters":              {long[:124], 1, 1, NoIndex, long[:124] + "/1/1"},
		"129 characters are hashed":   {long[:125], 1, 1, NoIndex, hashed(long[:125] + "/1/1")},
		"so is what the index pushes": {long[:124], 1, 1, 0, hashed(long[:124] + "/1/1/0")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ev := Event{Chunk: &Chunk{Topic: test.topic, Partition: test.partition}, Record: &Record{Offset: test.offset}, Index: test.index}
			if got := string(ev.MessageID([]byte("before"))); got != "before"+test.want {
				t.Errorf("id is %s, want %s", got, test.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for typ := TopologyOperation; typ < NumTypes; typ++ {
		if TypeOf(typ.String()) != typ {
			t.Errorf("%s is not itself", typ)
		}
	}
	for _, name := range []string{"", "Unknown", "sensorchange", "SensorChange ", "SensorChang"} {
		if typ := TypeOf(name); typ != Unknown {
			t.Errorf("%q is %s", name, typ)
		}
	}
	seen := map[string]bool{}
	for r := range NumReasons {
		if r.String() == "" || seen[r.String()] {
			t.Errorf("reason %d is called %q", r, r)
		}
		seen[r.String()] = true
	}
}

func TestLastHeaderWins(t *testing.T) {
	r := Record{Headers: []Header{{"a", []byte("1")}, {"b", nil}, {"a", []byte("2")}}}
	if v, ok := r.Header("a"); !ok || string(v) != "2" {
		t.Errorf("a is %s", v)
	}
	if v, ok := r.Header("b"); !ok || v != nil {
		t.Errorf("b is %v, %v", v, ok)
	}
	if _, ok := r.Header("A"); ok {
		t.Error("names match in any case")
	}
}

// What a chunk holds is its own, and nil stays apart from empty.
func TestChunkCopies(t *testing.T) {
	source := []byte("keyvaluehead")
	c := NewChunk("twins", 3, 3, 12, func(*Chunk) {})
	r := c.Add(10, 1000, 4, source[:3], source[3:8])
	c.AddHeader("h", source[8:])
	c.Add(11, 1001, 5, nil, nil)
	c.Add(13, 1002, 6, source[:0], source[:0])
	if want := int64(cap(c.buf) + 3*recordOverhead + HeaderOverhead + 1); cap(c.buf) < 12 || c.Bytes() != want { // it can be another test's buffer
		t.Errorf("the chunk counts %d bytes, want %d", c.Bytes(), want)
	}
	for i := range source {
		source[i] = 'X'
	}
	if string(r.Key) != "key" || string(r.Value) != "value" || string(c.Records[0].Headers[0].Value) != "head" {
		t.Errorf("the record is %s, %s, %s", r.Key, r.Value, c.Records[0].Headers)
	}
	_ = append(r.Key, "overwritten"...)
	if string(r.Value) != "value" {
		t.Error("a key can grow into its value")
	}
	if x := c.Records[1]; x.Key != nil || x.Value != nil {
		t.Errorf("a tombstone became %#v", x)
	}
	if x := c.Records[2]; x.Key == nil || x.Value == nil || len(x.Key)+len(x.Value) > 0 {
		t.Errorf("empty became %#v", x)
	}
	if cap(c.Records[2].Value) > 0 {
		t.Error("an empty value keeps the fetch alive that it came in")
	}
	if c.First != 10 || c.Last != 13 || c.Epoch != 6 {
		t.Errorf("the chunk is %d..%d in epoch %d", c.First, c.Last, c.Epoch)
	}
}

func TestHoldAndSettle(t *testing.T) {
	settled := 0
	c := NewChunk("twins", 3, 1, 0, func(*Chunk) { settled++ })
	c.Hold(5)
	c.Settle(2)
	c.Settle(1)
	c.Hold(3)
	c.Settle(5)
	if settled != 0 {
		t.Fatal("settled with a count held")
	}
	c.Settle(1)
	if settled != 1 {
		t.Fatalf("settled %d times", settled)
	}
	defer func() {
		if p := fmt.Sprint(recover()); !strings.HasPrefix(p, "BUG: chunk twins/3") || settled != 1 {
			t.Errorf("settling once too often gives %s, and settled %d times", p, settled)
		}
	}()
	c.Settle(1)
}

// Many settle at once: the settled function runs once, and the one who runs it
// sees what all others did before.
func TestConcurrentSettles(t *testing.T) {
	for range 200 {
		var settled atomic.Int32
		done := make([]bool, 8) // not atomic: Settle must order it
		c := NewChunk("twins", 3, 1, 0, func(*Chunk) {
			settled.Add(1)
			for i, d := range done {
				if !d {
					t.Errorf("settled before goroutine %d was done", i)
				}
			}
		})
		c.Hold(len(done) * 10)
		var all sync.WaitGroup
		for i := range done {
			all.Go(func() {
				for range 9 {
					c.Settle(1)
				}
				done[i] = true
				c.Settle(1)
			})
		}
		c.Settle(1)
		all.Wait()
		if n := settled.Load(); n != 1 {
			t.Fatalf("settled %d times", n)
		}
	}
}

// A chunk that was used before is as a new one.
func TestFreedChunkLeaksNothing(t *testing.T) {
	c := NewChunk("twins", 3, 2, 100, func(*Chunk) {})
	for o := range int64(2) {
		c.Add(o, 1, 1, []byte("key"), []byte("value"))
		c.AddHeader("h", []byte("v"))
	}
	c.Seq = 9
	c.Events = append(c.Events, Event{Chunk: c, Subject: "s"})
	c.Rejected = append(c.Rejected, Rejection{Detail: "d"})
	records, events, rejected := c.Records, c.Events, c.Rejected
	c.Settle(1)
	c.Free()
	if records[0].Key != nil || records[1].Headers != nil || events[0].Chunk != nil || rejected[0].Detail != "" {
		t.Error("what was freed is still reachable")
	}
	if c.Topic != "" || c.Partition != 0 || c.Seq != 0 || c.Last != 0 || c.Epoch != 0 || c.settled != nil || c.pending.Load() != 0 ||
		len(c.Records)+len(c.Events)+len(c.Rejected)+len(c.buf) > 0 {
		t.Errorf("a freed chunk is %+v", c)
	}

	large := NewChunk("twins", 3, 1, maxPooledBytes+1, func(*Chunk) {})
	large.Free()
	if cap(large.buf) > 0 {
		t.Errorf("the pool keeps %d bytes of a chunk", cap(large.buf))
	}
}

// What a freed chunk keeps beyond its buffer is in proportion to that: the next one
// counts the buffer alone.
func TestFreedChunkKeepsLittle(t *testing.T) {
	for name, tt := range map[string]struct {
		bytes, events int
		kept          bool
	}{
		"as many as a small chunk has":   {1000, 200, true},
		"more than a small chunk has":    {1000, 2000, false},
		"as many as a full chunk has":    {256 << 10, 2600, true},
		"more than a full chunk has":     {256 << 10, 10_000, false},
		"of a chunk that is very large":  {maxPooledBytes + 1, 10_000, false},
		"as many as a chunk in half has": {128 << 10, 1300, true},
	} {
		c := NewChunk("t", 0, 1, tt.bytes, func(*Chunk) {})
		c.buf = make([]byte, 0, tt.bytes) // a chunk of another test has another one
		c.Events, c.Rejected = make([]Event, 0, tt.events), make([]Rejection, 0, tt.events)
		c.Free()
		if kept := cap(c.Events) > 0; kept != tt.kept || cap(c.Rejected) > 0 != tt.kept {
			t.Errorf("%s: kept %t, want %t", name, kept, tt.kept)
		}
	}
}

// Chunks that go round the pool never share bytes while they are in use.
func TestChunksInUseShareNothing(t *testing.T) {
	var users sync.WaitGroup
	for u := range 8 {
		users.Go(func() {
			for i := range 500 {
				want := fmt.Sprintf("%d/%d", u, i)
				c := NewChunk("twins", int32(u), 2, 1+i%40, func(c *Chunk) { c.Free() })
				c.Add(int64(i), 0, 0, []byte(want), []byte(want))
				c.AddHeader(want, []byte(want))
				c.Events = append(c.Events, Event{Chunk: c, Record: &c.Records[0], Body: c.Records[0].Value})
				if len(c.Records) != 1 || len(c.Events) != 1 || len(c.Rejected) != 0 {
					t.Errorf("a new chunk has %d records, %d events", len(c.Records), len(c.Events))
				}
				r := c.Records[0]
				if string(r.Key) != want || string(c.Events[0].Body) != want || string(r.Headers[0].Value) != want || r.Headers[0].Key != want {
					t.Errorf("a chunk holds %+v, want %s", r, want)
				}
				c.Settle(1)
			}
		})
	}
	users.Wait()
}

// A chunk counts at least half of the memory that it holds, whatever is in it:
// what it counts too little is memory beyond the limit of bytes in flight.
func TestBytesCountsWhatIsHeld(t *testing.T) {
	header := func(key, value string) [2]string { return [2]string{key, value} }
	for name, tt := range map[string]struct {
		records, value int
		headers        int
		header         [2]string
		elements       int // of each record
		rejected       bool
	}{
		"events":               {records: 256, value: 500},
		"empty records":        {records: 256},
		"empty headers":        {records: 10, headers: 50_000},
		"headers of one byte":  {records: 10, headers: 50_000, header: header("k", "v")},
		"headers of long keys": {records: 10, headers: 1000, header: header(strings.Repeat("k", 1000), "")},
		"an array of events":   {records: 1, value: 300_000, elements: 100_000},
		"rejected elements":    {records: 1, value: 300_000, elements: 100_000, rejected: true},
		"one large record":     {records: 1, value: 10 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			before := heaptest.Bytes()
			c := NewChunk("t", 0, tt.records, tt.records*(tt.value+tt.headers*len(tt.header[1])), func(*Chunk) {})
			grown := int64(0)
			c.Grew = func(bytes int64) { grown += bytes }
			value := make([]byte, tt.value)
			for i := range tt.records {
				r := c.Add(int64(i), 0, 0, nil, value)
				for range tt.headers {
					c.AddHeader(tt.header[0], []byte(tt.header[1]))
				}
				for e := range tt.elements {
					ev := Event{Chunk: c, Record: r, Index: int32(e)}
					if tt.rejected {
						c.Rejected = append(c.Rejected, Rejection{Event: ev, Detail: strings.Repeat("d", 50)})
					} else {
						c.Events = append(c.Events, ev)
					}
				}
			}
			read := c.Bytes()
			c.Decoded()
			value = nil
			held := heaptest.Bytes() - before
			if got := c.Bytes(); got < held/2 || got != read+grown || grown != c.Grown() {
				t.Errorf("%d bytes are counted, %d of them after decoding; %d are held", got, grown, held)
			}
			runtime.KeepAlive(c)
		})
	}
}

// The same of records of any shape.
func TestBytesOfAnyShape(t *testing.T) { rapid.Check(t, bytesAreCounted) }

func FuzzBytes(f *testing.F) {
	f.Add([]byte("a first input, of which rapid makes its draws"))
	f.Fuzz(rapid.MakeFuzz(bytesAreCounted))
}

func bytesAreCounted(t *rapid.T) {
	records := rapid.IntRange(1, 32).Draw(t, "records")
	key, value := rapid.IntRange(0, 1000).Draw(t, "key"), rapid.IntRange(0, 1000).Draw(t, "value")
	headers := rapid.IntRange(0, 100).Draw(t, "headers")
	name, content := rapid.IntRange(0, 300).Draw(t, "name"), rapid.IntRange(0, 300).Draw(t, "content")
	before := heaptest.Bytes()
	c := NewChunk("t", 0, records, records*(key+value+headers*content), func(*Chunk) {})
	for i := range records {
		c.Add(int64(i), 0, 0, make([]byte, key), make([]byte, value))
		for range headers {
			c.AddHeader(strings.Repeat("k", name), make([]byte, content))
		}
	}
	held := heaptest.Bytes() - before
	const others = 64 << 10 // what the test itself allocates
	if got := c.Bytes(); got < (held-others)/2 {
		t.Errorf("%d bytes are counted, %d are held", got, held)
	}
	runtime.KeepAlive(c)
}

// A chunk that stands for offsets without records has one rejection, for the dead
// letter that says so.
func TestSkip(t *testing.T) {
	c := NewChunk("t", 1, 0, 0, func(*Chunk) {})
	c.Skip(5, 9, 7, 3, Undecodable, "why")
	if r := c.Rejected[0]; c.First != 5 || c.Last != 9 || c.Epoch != 3 || r.Event.Record.Offset != 5 || r.Detail != "why" || r.Event.Chunk != c {
		t.Errorf("got %+v", c)
	}
}
