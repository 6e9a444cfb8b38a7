package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/go-amqp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The encoders are of the tests' own, so that they can be wrong.

func frameOf(kind byte, channel uint16, body []byte) []byte {
	f := binary.BigEndian.AppendUint32(nil, uint32(headerSize+len(body)))
	return append(binary.BigEndian.AppendUint16(append(f, 2, kind), channel), body...)
}

func described(code byte, of []byte) []byte { return append([]byte{0, smallUlong, code}, of...) }

func list(values ...[]byte) []byte {
	all := slices.Concat(values...)
	b := binary.BigEndian.AppendUint32([]byte{list32}, uint32(4+len(all)))
	return append(binary.BigEndian.AppendUint32(b, uint32(len(values))), all...)
}

func mapOf(values ...[]byte) []byte {
	b := list(values...)
	b[0] = map32
	return b
}

func uintOf(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{uint32Code}, n) }

func textOf(code byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{code}, uint32(len(s))), s...)
}

func str(s string) []byte    { return textOf(0xb1, s) }
func symbol(s string) []byte { return textOf(0xb3, s) }

var (
	none   = []byte{null}
	yes    = []byte{boolTrue}
	no     = []byte{boolFalse}
	accept = described(0x24, []byte{list0})
)

// perf is a performative in a frame of channel 0.
func perf(code byte, values ...[]byte) []byte { return frameOf(0, 0, described(code, list(values...))) }

func openOf(maxFrame, idle []byte) []byte { return perf(open, str("peer"), none, maxFrame, none, idle) }

// attachOf is an answer: as a sender, whose messages we read, or a receiver.
func attachOf(handle uint32, sender bool) []byte {
	role := yes
	if sender {
		role = no
	}
	return perf(attach, str("link"), uintOf(handle), role, none, none, described(0x28, list(str("source"))))
}

// refusalOf is the answer of a service that does not open the link.
func refusalOf(handle uint32, condition string) []byte {
	return slices.Concat(perf(attach, str("link"), uintOf(handle), no), detachOf(handle, condition))
}

func dispositionOf(first uint32, last, state []byte) []byte {
	return perf(disposition, yes, uintOf(first), last, yes, state)
}

func transferOf(handle uint32, more bool, payload []byte) []byte {
	m := no
	if more {
		m = yes
	}
	body := described(transfer, list(uintOf(handle), uintOf(0), []byte{0xa0, 1, 1}, uintOf(0), yes, m))
	return frameOf(0, 0, append(body, payload...))
}

func detachOf(handle uint32, condition string) []byte {
	return perf(detach, uintOf(handle), yes, described(errorValue, list(symbol(condition), str("text"))))
}

// answer is a message as the services answer with.
func answer(value []byte) []byte {
	return slices.Concat(
		described(properties, list(none, none, none, none, none, str("correlation"))),
		described(0x74, mapOf(str("status-code"), []byte{0x71, 0, 0, 0, 200})),
		described(0x77, value),
	)
}

// nested is a value n deep.
func nested(n int) []byte {
	b := none
	for range n {
		b = list(b)
	}
	return b
}

var (
	saslHeader = []byte("AMQP\x03\x01\x00\x00")
	amqpHeader = []byte("AMQP\x00\x01\x00\x00")
	mechanisms = frameOf(1, 0, described(0x40, list([]byte{0xe0, 12, 1, 0xa3, 9, 'A', 'N', 'O', 'N', 'Y', 'M', 'O', 'U', 'S'})))
	outcome    = frameOf(1, 0, described(saslOutcome, list([]byte{0x50, 0})))
	heartbeat  = frameOf(0, 0, nil)
	connected  = slices.Concat(saslHeader, mechanisms, outcome, amqpHeader)
	// opening is all up to a session with a link of each kind.
	opening = slices.Concat(connected, openOf(uintOf(MaxFrame), uintOf(240_000)),
		perf(begin, none, uintOf(0), uintOf(5000), uintOf(5000)), attachOf(0, true), attachOf(1, false))
)

// asked is what we have written when the opening is over.
var asked = [][]byte{
	saslHeader, frameOf(1, 0, described(0x41, list(symbol("ANONYMOUS")))), amqpHeader, openOf(none, none),
	perf(begin, none), attachOf(0, false), attachOf(1, true),
}

func newGuard() (*Guard, *Outcomes) {
	seen := new(Outcomes)
	g := NewGuard(seen)
	for _, frame := range asked {
		g.Write(frame)
	}
	return g, seen
}

// What is at the limit passes, and what is beyond it doesn't, however it is cut
// into reads.
func TestLimits(t *testing.T) {
	// big fills a frame of a size; the size of what is around it is measured.
	big := func(size int, of func(string) []byte) []byte {
		return of(strings.Repeat("x", size-len(of(""))))
	}
	refusal := func(s string) []byte {
		return dispositionOf(0, none, described(rejected, list(described(errorValue, list(symbol("amqp:internal-error"), str(s))))))
	}
	sasl := func(s string) []byte { return frameOf(1, 0, described(0x40, list(str(s)))) }
	message := func(size int) []byte {
		return big(size, func(s string) []byte { return answer(str(s)) })
	}
	giant := []byte{0x7f, 0xff, 0xff, 0xff, 2, 0, 0, 0}
	tests := map[string]struct {
		before, stream []byte // before: instead of the opening
		bad            string // what the error says
	}{
		"a frame as long as announced":       {stream: big(MaxFrame, refusal)},
		"a frame longer than announced":      {stream: big(MaxFrame+1, refusal), bad: "65537 bytes, more than the 65536"},
		"a frame of 2 GiB":                   {stream: giant, bad: "2147483647 bytes"},
		"a frame as long as SASL has":        {before: saslHeader, stream: big(maxSASLFrame, sasl)},
		"a longer frame of SASL":             {before: saslHeader, stream: big(maxSASLFrame+1, sasl), bad: "513 bytes, more than the 512"},
		"a frame of 2 GiB of SASL":           {before: saslHeader, stream: []byte{0x7f, 0xff, 0xff, 0xff, 2, 1, 0, 0}, bad: "2147483647 bytes"},
		"a frame shorter than its header":    {stream: []byte{0, 0, 0, 7, 2, 0, 0, 0}, bad: "7 bytes"},
		"a longer header":                    {stream: []byte{0, 0, 0, 12, 3, 0, 0, 0, 0, 0, 0, 0}, bad: "header of 12 bytes"},
		"a frame of SASL, too late":          {stream: mechanisms, bad: "type 1"},
		"no AMQP":                            {before: []byte{}, stream: []byte("HTTP/1.1 400 Bad Request"), bad: "does not speak AMQP"},
		"a protocol, too late":               {stream: amqpHeader, bad: "1095586128 bytes"},
		"an outcome of SASL, too late":       {stream: perf(saslOutcome, []byte{0x50, 0})},
		"no performative":                    {stream: frameOf(0, 0, []byte{0x40}), bad: "without a performative"},
		"a performative's code, written out": {stream: frameOf(0, 0, []byte{0, ulong, 0, 0, 0, 0, 0, 0, 0, closing, list0}), bad: "without a performative"},

		"a hundred heartbeats": {stream: bytes.Repeat(heartbeat, 100)},
		"endless heartbeats":   {stream: bytes.Repeat(heartbeat, 3000), bad: "on and on"},

		"small frames":        {before: connected, stream: openOf(uintOf(512), none)},
		"smaller frames":      {before: connected, stream: openOf(uintOf(511), none), bad: "frames of 511 bytes"},
		"an idle time-out":    {before: connected, stream: openOf(none, uintOf(1000))},
		"no idle time-out":    {before: connected, stream: openOf(none, uintOf(0))},
		"too short a one":     {before: connected, stream: openOf(none, uintOf(999)), bad: "after 999 ms"},
		"another session":     {stream: perf(begin, none), bad: "session that nobody asked for"},
		"another link":        {stream: attachOf(2, false), bad: "link that nobody asked for"},
		"an end":              {stream: perf(end)},
		"a message after end": {stream: slices.Concat(perf(end), transferOf(0, false, answer(none))), bad: "link that is for ours"},

		"a value nested":        {stream: dispositionOf(0, none, nested(maxDepth-1))},
		"a value nested deeper": {stream: dispositionOf(0, none, nested(maxDepth)), bad: "nested more than 16 deep"},
		"a frame of nesting":    {stream: dispositionOf(0, none, bytes.Repeat([]byte{list8, 2, 1}, 20_000)), bad: "malformed"},
		"described, described":  {stream: dispositionOf(0, none, append(bytes.Repeat([]byte{0, smallUlong, 1}, 20), null)), bad: "nested more than"},
		"a descriptor, nested":  {stream: dispositionOf(0, none, bytes.Repeat([]byte{0}, 100)), bad: "malformed"},
		"a size that lies":      {stream: dispositionOf(0, none, []byte{list8, 3, 1, null, null}), bad: "malformed"},
		"a map":                 {stream: dispositionOf(0, none, mapOf(str("k"), nested(2)))},
		"a map with a list":     {stream: dispositionOf(0, none, mapOf(list(), none)), bad: "whose key"},
		"a map with bytes":      {stream: dispositionOf(0, none, mapOf([]byte{0xa0, 1, 1}, none)), bad: "whose key"},
		"a map with more bytes": {stream: dispositionOf(0, none, mapOf([]byte{0xb0, 0, 0, 0, 1, 1}, none)), bad: "whose key"},
		"a map, described key":  {stream: dispositionOf(0, none, mapOf(described(0xff, list()), none)), bad: "whose key"},
		"a map without a value": {stream: dispositionOf(0, none, mapOf(str("k"))), bad: "malformed"},
		"too many fields":       {stream: perf(closing, slices.Repeat([][]byte{none}, 17)...), bad: "malformed"},

		"one delivery":              {stream: dispositionOf(7, none, accept)},
		"all that are in flight":    {stream: dispositionOf(7, uintOf(7+maxSettled-1), accept)},
		"more than are in flight":   {stream: dispositionOf(7, uintOf(7+maxSettled), accept), bad: "deliveries 7 to 1031"},
		"all that there can be":     {stream: dispositionOf(0, uintOf(1<<32-1), accept), bad: "deliveries 0 to 4294967295"},
		"the last that there is":    {stream: dispositionOf(1<<32-1, none, accept), bad: "4294967295 to 4294967295"},
		"backwards":                 {stream: dispositionOf(7, uintOf(6), accept), bad: "deliveries 7 to 6"},
		"no delivery":               {stream: perf(disposition, yes), bad: "without a delivery"},
		"a delivery that's a float": {stream: dispositionOf(0, []byte{0x72, 0, 0, 0, 0}, accept), bad: "malformed"},

		"credit":                {stream: perf(flow, uintOf(0), uintOf(1), uintOf(0), uintOf(1), uintOf(1), uintOf(0), uintOf(100))},
		"no credit":             {stream: perf(flow, uintOf(0), uintOf(1), uintOf(0), uintOf(1), uintOf(1)), bad: "without its credit"},
		"no credit, of no link": {stream: perf(flow, uintOf(0), uintOf(1), uintOf(0), uintOf(1))},

		"an answer":                   {stream: transferOf(0, false, answer(mapOf(symbol("name"), str("hub"))))},
		"an answer in parts":          {stream: slices.Concat(transferOf(0, true, answer(none)[:20]), transferOf(0, false, answer(none)[20:]))},
		"an answer, nested":           {stream: transferOf(0, false, answer(nested(maxDepth-1)))},
		"an answer, nested deeper":    {stream: transferOf(0, false, answer(nested(maxDepth))), bad: "nested more than"},
		"nested across parts":         {stream: slices.Concat(transferOf(0, true, answer(nested(maxDepth))[:90]), transferOf(0, false, answer(nested(maxDepth))[90:])), bad: "nested more than"},
		"a long answer":               {stream: slices.Concat(transferOf(0, true, message(MaxFrame)[:4<<10]), transferOf(0, false, message(MaxFrame)[4<<10:]))},
		"a longer answer":             {stream: slices.Concat(transferOf(0, true, message(MaxFrame + 1)[:4<<10]), transferOf(0, false, message(MaxFrame + 1)[4<<10:])), bad: "message of over 65536"},
		"an answer without end":       {stream: bytes.Repeat(transferOf(0, true, make([]byte, 1000)), 100), bad: "message of over 65536"},
		"an answer without anything":  {stream: transferOf(0, false, nil), bad: "without properties"},
		"an answer without its frame": {stream: transferOf(0, false, described(0x77, none)), bad: "without properties"},
		"an answer on another's link": {stream: transferOf(1, false, answer(none)), bad: "link that is for ours"},
		"the end of an answer's link": {stream: detachOf(0, "amqp:link:detach-forced")},
		"an end that is no end":       {stream: detachOf(0, "com.microsoft:server-busy"), bad: "ended the link for its answers with *Error{Condition: com.microsoft:server-busy, Description: text, Info: map[]}"},
		"a link that is refused":      {before: slices.Concat(opening[:len(opening)-len(attachOf(1, false))], refusalOf(1, "com.microsoft:server-busy"))},
		"the same of another link":    {stream: detachOf(1, "com.microsoft:server-busy")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			stream := opening
			if test.before != nil {
				stream = test.before
			}
			stream = slices.Concat(stream, test.stream)
			for _, step := range []int{1, 7, 1000, len(stream)} {
				g, _ := newGuard()
				var err error
				for part := range slices.Chunk(stream, step) {
					if err = g.Read(part); err != nil {
						break
					}
				}
				if is := fmt.Sprint(err); (err != nil) != (test.bad != "") || !strings.Contains(is, test.bad) {
					t.Errorf("read %d bytes at a time: %v, want %q", step, err, test.bad)
				}
				if cap(g.frame) > 2*MaxFrame {
					t.Errorf("%d bytes are kept", cap(g.frame))
				}
			}
		})
	}
}

func TestOutcomesAreSeen(t *testing.T) {
	small := []byte{0, smallUlong, disposition, list8, 11, 5, boolTrue, smallUint, 7, null, boolTrue, 0, smallUlong, released, list0}
	small[4] = byte(len(small) - 5)
	wide := described(disposition, list([]byte{boolean, 1}, uintOf(1), uintOf(9), []byte{boolean, 1},
		[]byte{0, ulong, 0, 0, 0, 0, 0, 0, 0, modified, list0}))
	stream := slices.Concat(
		opening, heartbeat,
		dispositionOf(7, none, accept),
		frameOf(0, 0, small),                                  // 1
		dispositionOf(7, none, described(modified, list(no))), // 2
		dispositionOf(7, none, described(rejected, list(none))),
		perf(disposition, yes, uintOf(7)), // no state
		frameOf(0, 0, wide),               // 3
		detachOf(1, "amqp:link:message-size-exceeded"), perf(end), perf(closing),
	)
	for step := 1; step <= len(stream); step++ {
		g, seen := newGuard()
		for part := range slices.Chunk(stream, step) {
			if err := g.Read(part); err != nil {
				t.Fatal(err)
			}
		}
		if ended := seen.Ended.Load(); ended != 3 {
			t.Fatalf("read %d bytes at a time, %d ends are seen, want 3", step, ended)
		}
		if returned, refused := seen.Returned.Load(), seen.Refused.Load(); returned != 3 || refused != 1 {
			t.Fatalf("read %d bytes at a time, %d returned and %d refused deliveries are seen, want 3 and 1", step, returned, refused)
		}
	}
}

// The largest message is what the last link of ours was told that has the entity for
// its target; links for tokens and for management have limits of their own.
func TestLargestMessage(t *testing.T) {
	answer := func(role []byte, target string, largest []byte) []byte {
		to := none
		if target != "" {
			to = described(0x29, list(str(target)))
		}
		return perf(attach, str("link"), uintOf(0), role, none, none, none, to, none, none, none, largest)
	}
	g, seen := newGuard()
	g.attaches.Store(100)
	if err := g.Read(opening); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		frame []byte
		want  uint64
	}{
		{"for tokens, before", answer(yes, "$cbs", []byte{smallUlong, 9}), 0},
		{"the entity", answer(yes, "hub", binary.BigEndian.AppendUint64([]byte{ulong}, 1<<40)), 1 << 40},
		{"for management", answer(yes, "hub/$management", []byte{smallUlong, 9}), 1 << 40},
		{"one that we read from", answer(no, "hub", []byte{smallUlong, 9}), 1 << 40},
		{"refused", answer(yes, "", []byte{smallUlong, 9}), 1 << 40},
		{"smaller, after a reconnect", answer(yes, "hub", []byte{smallUlong, 200}), 200},
		{"any size", answer(yes, "hub", []byte{0x44}), 0},
		{"again", answer(yes, "hub", []byte{smallUlong, 200}), 200},
		{"none is told", answer(yes, "hub", none), 0},
		{"too short a list", attachOf(0, false), 0},
	} {
		if err := g.Read(test.frame); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if got := seen.Largest.Load(); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

// A service that is asked, or takes its time, may go on for ever.
func TestBudget(t *testing.T) {
	answers := slices.Concat(dispositionOf(1, none, accept), perf(flow, uintOf(0), uintOf(1), uintOf(0), uintOf(1)), transferOf(0, false, answer(none)))
	tests := map[string]struct {
		ask, frames []byte
		every       time.Duration
		passes      bool
	}{
		"heartbeats every second":            {frames: heartbeat, every: time.Second, passes: true},
		"heartbeats a thousand times faster": {frames: heartbeat, every: time.Millisecond},
		"answers to batches":                 {ask: transferOf(1, false, nil), frames: answers, passes: true},
		"answers to nothing":                 {frames: answers},
		"flows that are to be answered":      {ask: perf(flow, none), frames: perf(flow, uintOf(0), uintOf(1), uintOf(0), uintOf(1), none, none, none, none, none, yes)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, _ := newGuard()
				err := g.Read(opening)
				n := 0
				for ; n < 100_000 && err == nil; n++ {
					g.Write(test.ask)
					err = g.Read(test.frames)
					time.Sleep(test.every)
				}
				if passes := err == nil; passes != test.passes || n < 100 {
					t.Errorf("after %d times: %v", n, err)
				}
			})
		})
	}
}

// What a service has left, at most, however long it was quiet and whatever was asked.
func TestBudgetIsBounded(t *testing.T) {
	const most = reserve / minCost // frames
	for name, tt := range map[string]struct {
		quiet    time.Duration
		requests int64
		frames   int // that come after all was spent
	}{
		"at once":               {0, 0, 0},
		"a second":              {time.Second, 0, 1 << 10 / minCost},
		"an hour":               {time.Hour, 0, most},
		"asked":                 {0, 1, 8 << 10 / minCost},
		"asked often":           {0, 1 << 40, most},
		"an hour, asked often":  {time.Hour, 1 << 40, most + 1}, // the first of them is paid for by what is cut off
		"a second, asked twice": {time.Second, 2, (1<<10 + 16<<10) / minCost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var requests atomic.Int64
				b := budget{left: reserve, at: time.Now()}
				spend := func() (frames int) {
					for b.take(0, &requests) {
						if frames++; frames > 2*most {
							t.Fatal("there is no end of it")
						}
					}
					b.left += minCost // of the one too many: its connection would end
					return frames
				}
				if n := spend(); n != most {
					t.Errorf("%d frames at first, want %d", n, most)
				}
				time.Sleep(tt.quiet)
				requests.Add(tt.requests)
				if n := spend(); n != tt.frames {
					t.Errorf("%d frames, want %d", n, tt.frames)
				}
			})
		})
	}
}

// What is read in one piece costs no allocation.
func TestReadAllocatesNothing(t *testing.T) {
	g, _ := newGuard()
	if err := g.Read(opening); err != nil {
		t.Fatal(err)
	}
	ask, reply := transferOf(1, false, nil), dispositionOf(1, none, accept)
	if n := testing.AllocsPerRun(1000, func() {
		g.Write(ask)
		if err := g.Read(reply); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(opening, 3)
	f.Add(slices.Concat(opening, dispositionOf(0, none, described(released, list()))), 9)
	f.Add(slices.Concat(opening, transferOf(0, true, answer(none)[:9]), transferOf(0, false, answer(none)[9:])), 1)
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		run := func(step int) string {
			g, seen := newGuard()
			var err error
			for part := range slices.Chunk(stream, step) {
				if err = g.Read(part); err != nil {
					break
				}
			}
			return fmt.Sprint(seen.Returned.Load(), seen.Refused.Load(), err)
		}
		if whole, parts := run(len(stream)+1), run(max(step, 1)); whole != parts {
			t.Fatalf("%s in one read, %s in reads of %d", whole, parts, step)
		}
	})
}

// A message that passes can be decoded, or not, without harm, and has what the
// SDKs take for granted.
func FuzzAnswer(f *testing.F) {
	f.Add(answer(nested(3)))
	f.Add(answer(mapOf(symbol("partition_ids"), []byte{0xe0, 6, 2, 0xa1, 1, '0', 1, '1'})))
	f.Add(answer(mapOf(uintOf(1), list(none, yes), none, described(1, str("x")))))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if checkMessage(payload) != nil {
			return
		}
		var m amqp.Message
		if err := m.UnmarshalBinary(payload); err == nil && m.Properties == nil {
			t.Error("no properties")
		}
	})
}

// What a batch costs here: 16 frames written, their outcome read.
func BenchmarkGuard(b *testing.B) {
	g, _ := newGuard()
	if err := g.Read(opening); err != nil {
		b.Fatal(err)
	}
	ask, reply := transferOf(1, true, make([]byte, 100)), dispositionOf(1, none, accept)
	b.ReportAllocs()
	for b.Loop() {
		for range 16 {
			g.Write(ask)
		}
		if err := g.Read(reply); err != nil {
			b.Fatal(err)
		}
	}
}
