package wire

import (
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// small values, as the services' own library encodes whatever fits.

func list8Of(values ...[]byte) []byte {
	all := slices.Concat(values...)
	if len(all) >= 255 {
		return list(values...)
	}
	return append([]byte{list8, byte(1 + len(all)), byte(len(values))}, all...)
}

func map8Of(values ...[]byte) []byte {
	b := list8Of(values...)
	b[0] += map8 - list8 // or map32 - list32
	return b
}

func str8(s string) []byte { return append([]byte{0xa1, byte(len(s))}, s...) }
func sym8(s string) []byte { return append([]byte{0xa3, byte(len(s))}, s...) }

// array8 is an array of small texts or symbols.
func array8(of byte, texts ...string) []byte {
	b := []byte{0xe0, 0, byte(len(texts)), of}
	for _, s := range texts {
		b = append(append(b, byte(len(s))), s...)
	}
	b[1] = byte(len(b) - 2)
	return b
}

func perf8(channel uint16, code byte, values ...[]byte) []byte {
	return frameOf(0, channel, described(code, list8Of(values...)))
}

// What Event Hubs and Service Bus send in the forms in which they do: small
// encodings, values that a service of the tests leaves out, ends of links and of
// connections. None of it is a violation.
func TestAzure(t *testing.T) {
	fromHex := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	fault := func(condition, text string, info ...[]byte) []byte {
		values := [][]byte{sym8(condition), str8(text)}
		if info != nil {
			values = append(values, map8Of(info...))
		}
		return described(errorValue, list8Of(values...))
	}
	at := described(0x28, list8Of(str8("hub"), none, none, none, no, none, none,
		map8Of(sym8("apache.org:selector-filter:string"), append([]byte{0}, slices.Concat(sym8("apache.org:selector-filter:string"), str8("x"))...)),
		described(0x24, []byte{list0}), array8(0xa3, "amqp:accepted:list", "amqp:rejected:list"), none))
	linkProperties := map8Of(
		sym8("com.microsoft:tracking-id"), str8("G4"),
		// A time span of .NET's: described by a number of its own.
		sym8("com.microsoft:timeout"), []byte{0, ulong, 0, 0, 1, 0x37, 0, 0, 0, 4, 0x81, 0, 0, 0, 0, 0, 0, 0, 1},
		sym8("com.microsoft:locked-until-utc"), []byte{0x83, 0, 0, 1, 0x8f, 0, 0, 0, 0},
	)
	attachAs := func(handle, role []byte) []byte {
		return perf8(0, attach, str8("link"), handle, role, []byte{0x50, 0}, []byte{0x50, 0}, at, described(0x29, list8Of(str8("hub"))),
			map8Of(), none, []byte{uint0}, []byte{ulong, 0, 0, 0, 0, 0, 0x10, 0, 0}, array8(0xa3, "com.microsoft:x"), none, linkProperties)
	}
	message := slices.Concat(
		described(0x70, list8Of(yes)),
		described(0x71, map8Of(sym8("x-opt-span"), []byte{0, 0xa3, 1, 'x', 0x81, 0, 0, 0, 0, 0, 0, 0, 1})),
		described(0x72, map8Of(sym8("x-opt-id"), append([]byte{0x98}, make([]byte, 16)...))),
		described(properties, list8Of(none, none, none, none, none, str8("correlation"))),
		described(0x74, map8Of(str8("status-code"), []byte{0x71, 0, 0, 0, 202}, str8("status-description"), str8("Accepted"), str8("x"), []byte{0x54, 1})),
		described(0x77, map8Of(
			str8("name"), str8("hub"), str8("created_at"), []byte{0x83, 0, 0, 1, 0x8f, 0, 0, 0, 0},
			str8("partition_count"), []byte{0x54, 4}, str8("partition_ids"), array8(0xa1, "0", "1", "2", "3"))),
	)
	reply := frameOf(0, 0, append(described(transfer, list8Of([]byte{uint0}, []byte{smallUint, 1}, []byte{0xa0, 1, 1}, []byte{uint0}, yes, no)), message...))
	stream := slices.Concat(
		saslHeader,
		// Both as they were captured: the mechanisms, and "Welcome!".
		fromHex("0000003f 02010000 005340 c03201 e02f04b3 00000007 4d535342434253 00000005 504c41494e 00000009 414e4f4e594d4f5553 00000008 45585445524e414c"),
		fromHex("0000001a 02010000 005344 c00d02 5000 a008 57656c636f6d6521"),
		amqpHeader,
		perf8(0, open, str8("d4b5"), none, []byte{uint32Code, 0, 1, 0, 0}, []byte{0x60, 0x13, 0x87}, []byte{uint32Code, 0, 1, 0xd4, 0xc0},
			none, none, none, none, map8Of(sym8("product"), str8("MSSB"))),
		perf8(0, begin, []byte{0x60, 0, 0}, []byte{smallUint, 1}, []byte{uint32Code, 0, 0, 0x13, 0x88}, []byte{uint32Code, 0, 0, 0x13, 0x88}, []byte{0x70, 0, 0, 0, 0xff}, none, none, none),
		attachAs([]byte{uint0}, no), attachAs([]byte{smallUint, 1}, yes),
		perf8(0, flow, []byte{uint0}, []byte{uint32Code, 0, 0, 0x13, 0x88}, []byte{smallUint, 1}, []byte{uint32Code, 0, 0, 0x13, 0x88}, []byte{smallUint, 1}, []byte{uint0}, []byte{uint32Code, 0, 0, 1, 0x2c}, []byte{uint0}, none, no, none),
		// Of the session alone, and of the link on which it sends.
		perf8(0, flow, []byte{uint0}, []byte{smallUint, 9}, []byte{smallUint, 1}, []byte{smallUint, 9}),
		perf8(0, flow, []byte{uint0}, []byte{smallUint, 9}, []byte{smallUint, 1}, []byte{smallUint, 9}, []byte{uint0}, []byte{smallUint, 1}, []byte{smallUint, 7}, []byte{uint0}, yes),
		heartbeat,
		perf8(0, disposition, yes, []byte{uint0}, none, yes, described(0x24, []byte{list0})),
		perf8(0, disposition, yes, []byte{smallUint, 1}, []byte{smallUint, 3}, yes, described(rejected, list8Of(fault("com.microsoft:server-busy", "wait 4 seconds")))),
		reply,
		frameOf(0, 0, slices.Concat(described(transfer, list8Of([]byte{uint0}, []byte{smallUint, 2}, []byte{0xa0, 1, 2}, []byte{uint0}, yes, yes)), message[:50])),
		frameOf(0, 0, slices.Concat(described(transfer, list8Of([]byte{uint0})), message[50:])),
		perf8(0, detach, []byte{smallUint, 1}, yes, fault("amqp:link:redirect", "moved", sym8("hostname"), str8("other"), sym8("network-host"), str8("10.0.0.1"), sym8("port"), []byte{0x71, 0, 0, 0x16, 0x27})),
		perf8(0, detach, []byte{uint0}, yes, fault("amqp:link:detach-forced", "Idle timeout: 00:10:00.")),
		perf8(0, end, fault("amqp:internal-error", "The service was unable to process the request")),
		perf8(0, closing, fault("amqp:connection:forced", "The connection was inactive for more than the allowed 240000 milliseconds")),
	)
	for _, step := range []int{1, len(stream)} {
		g, seen := newGuard()
		for part := range slices.Chunk(stream, step) {
			if err := g.Read(part); err != nil {
				t.Fatalf("%d bytes at a time: %v", step, err)
			}
		}
		if len(g.frame) > 0 || seen.Refused.Load() != 1 || seen.Returned.Load() != 0 {
			t.Errorf("%d bytes at a time: %d are left, %d refused, %d returned", step, len(g.frame), seen.Refused.Load(), seen.Returned.Load())
		}
	}
}
