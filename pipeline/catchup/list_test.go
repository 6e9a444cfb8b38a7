package catchup

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"
)

func someID(r *rand.Rand) string {
	var u uuid.UUID
	for i := range u {
		u[i] = byte(r.Uint32())
	}
	return u.String()
}

// afterAnOutage is a list of endpoints that left within seconds of each other, at
// somewhat different places.
func afterAnOutage(n int) *list {
	r := rand.New(rand.NewPCG(1, 2))
	l := new(list)
	for range n {
		l.entries = append(l.entries, entry{id: someID(r), cursor: 5_000_000_000 + r.Int64N(10_000), resume: -1, since: 1_790_000_000 + r.Int64N(30)})
	}
	return l
}

func TestListComesBack(t *testing.T) {
	for title, l := range map[string]*list{
		"empty":   {},
		"outage":  afterAnOutage(1000),
		"applied": {applied: []uint32{1, math.MaxUint32}},
		"all of it": {
			entries: []entry{
				{id: "an id of its own", cursor: 0, resume: 7, since: 0},
				{id: "00000000-0000-4000-8000-000000000001", cursor: 0, resume: -1, since: maxSince},
				{id: "00000000-0000-4000-8000-00000000000A", cursor: 1, resume: 0, since: 5}, // not as a UUID comes back
				{id: "00000000-0000-4000-8000-000000000002", cursor: math.MaxInt64, resume: math.MaxInt64, since: 5},
			},
			applied: []uint32{3}, left: 4, leftFrom: 9,
		},
	} {
		got, name, err := parseMetadata(inline(l.encode()))
		if err != nil || name != "" || !reflect.DeepEqual(&got, l) {
			t.Errorf("%s: %q, %v\ngot  %+v\nwant %+v", title, name, err, got, l)
		}
	}
}

// The first 130 endpoints that are behind need no topic.
func TestListsThatFit(t *testing.T) {
	if n := inlineLen(afterAnOutage(130).encode()); n > maxInline {
		t.Errorf("130 endpoints take %d bytes", n)
	}
	if n := len(afterAnOutage(10_000).encode()); n > maxList {
		t.Errorf("10,000 endpoints take %d bytes, and a record has %d", n, maxList)
	}
}

// What doesn't fit is cut: those who have the least to catch up on, and all seeks first.
func TestFit(t *testing.T) {
	l := afterAnOutage(500)
	for range 100 {
		l.applied = append(l.applied, rand.Uint32())
	}
	text := inline(l.fit(maxInline))
	got, _, err := parseMetadata(text)
	if err != nil || len(text) > maxInline || len(text) < maxInline-200 {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	all := afterAnOutage(500)
	all.encode() // sorts
	n := len(got.entries)
	if n < 130 || !reflect.DeepEqual(got.entries, all.entries[:n]) || got.left != uint64(500-n) || got.leftFrom != all.entries[n].cursor || len(got.applied) > 0 {
		t.Errorf("%d entries and %d seeks; left %d from %d", n, len(got.applied), got.left, got.leftFrom)
	}

	seeks := list{entries: afterAnOutage(3).entries}
	for range 2000 {
		seeks.applied = append(seeks.applied, rand.Uint32())
	}
	if text = inline(seeks.fit(maxInline)); len(text) > maxInline || len(seeks.entries) != 3 || len(seeks.applied) < 700 || seeks.left != 0 {
		t.Errorf("%d bytes with %d entries and %d seeks", len(text), len(seeks.entries), len(seeks.applied))
	}
	if text = inline(afterAnOutage(50).fit(minInline)); len(text) > minInline {
		t.Errorf("nothing but what is missing takes %d bytes", len(text))
	}
}

func TestMetadataOfOthers(t *testing.T) {
	encode := base64.RawStdEncoding.EncodeToString
	for metadata, want := range map[string]error{
		"": errForeign,
		"twinegress-b2c3d4e5-0000-4000-8000-000000000001": errForeign, // the id of a member: what versions before this one commit
		"twinegress/20":    errForeign,
		"twinegress/3:AA":  errForeign,
		"twinegress/2@":    errForeign,
		"twinegress/2@a/b": errForeign,
		"twinegress/2@" + strings.Repeat("a", 100): errForeign,
		"twinegress/2:":  errMalformed,
		"twinegress/2:A": errMalformed,
		"twinegress/2:" + encode([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}): errMalformed, // 4 billion entries
		"twinegress/2:" + encode([]byte{0, 0, 0, 0}):                   errMalformed, // something behind it
	} {
		if l, name, err := parseMetadata(metadata); !errors.Is(err, want) || !l.empty() || name != "" {
			t.Errorf("%q: %+v, %q, %v", metadata, l, name, err)
		}
	}
}

// FuzzMetadata: what is committed by whomever does no harm, and what is read as a list
// is written so that it is read the same.
func FuzzMetadata(f *testing.F) {
	for _, l := range []*list{{}, afterAnOutage(3), {applied: []uint32{7}, left: 3, leftFrom: 5}, {entries: []entry{{id: "x", cursor: 5, resume: 7}}}} {
		f.Add(inline(l.encode()))
	}
	f.Add("twinegress/2@abc-1")
	f.Add(fmt.Sprint("twinegress/2:", strings.Repeat("A", 100)))
	f.Fuzz(func(t *testing.T, metadata string) {
		l, _, err := parseMetadata(metadata)
		if err != nil {
			return
		}
		again, err := decodeList(l.encode())
		if err != nil || !reflect.DeepEqual(again, l) && !l.empty() {
			t.Errorf("%v\ngot  %+v\nwant %+v", err, again, l)
		}
	})
}
