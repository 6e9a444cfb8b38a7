package catchup

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// The metadata of a commit: the version, alone if nobody is behind; or a list behind
// a colon; or, behind an at, the name of the record that has the list. Versions before
// the second committed what the Kafka client puts there, the member's id.
const (
	Version = "twinegress/2"

	inlineMark, namedMark = ":", "@"
)

const (
	// maxInline is how long the metadata of a commit may be: the brokers'
	// offset.metadata.max.bytes, by default.
	maxInline = 4096
	// minInline has room for a name, whatever the brokers' bound is.
	minInline = 64
	// maxList bounds a list's record: a topic takes 1 MiB by default, with its frame.
	maxList = 1000 << 10
	// maxID bounds the id of an endpoint that is no UUID.
	maxID = 128
	// maxSince bounds a time in seconds, so that it can be shifted.
	maxSince = 1 << 40
)

// entry is one endpoint's position in a partition.
type entry struct {
	id     string
	cursor int64 // the first offset that it has no outcome of
	resume int64 // where it goes back to if its seek is cancelled; -1: there is none
	since  int64 // when it fell behind, in Unix seconds
}

// list is what is committed beside a partition's mark.
type list struct {
	entries []entry
	applied []uint32 // hashes of the seeks that were applied in this partition
	// left is how many positions there was no room for, and leftFrom the lowest of
	// their offsets. Whoever takes the partition over knows that they are lost.
	left     uint64
	leftFrom int64
}

func (l *list) empty() bool { return len(l.entries) == 0 && len(l.applied) == 0 && l.left == 0 }

func byCursor(a, b entry) int {
	return cmp.Or(cmp.Compare(a.cursor, b.cursor), strings.Compare(a.id, b.id))
}

const withResume, withText = 1, 2

// encode returns the list as bytes. It sorts entries and applied: after an outage most
// cursors are close to each other, and differences are short.
func (l *list) encode() []byte {
	slices.SortFunc(l.entries, byCursor)
	slices.Sort(l.applied)
	b := make([]byte, 0, 32+24*len(l.entries)+4*len(l.applied))
	b = binary.AppendUvarint(b, uint64(len(l.entries)))
	base := int64(math.MaxInt64)
	for i := range l.entries {
		base = min(base, clampSince(l.entries[i].since))
	}
	if len(l.entries) > 0 {
		b = binary.AppendUvarint(b, uint64(base))
	}
	before := int64(0)
	for i := range l.entries {
		e := &l.entries[i]
		id, is := canonicalUUID(e.id)
		flags := uint64(0)
		if e.resume >= 0 {
			flags |= withResume
		}
		if !is {
			flags |= withText
		}
		b = binary.AppendUvarint(b, uint64(clampSince(e.since)-base)<<2|flags)
		b = binary.AppendUvarint(b, uint64(max(e.cursor, 0)-before))
		before = max(e.cursor, 0)
		if is {
			b = append(b, id[:]...)
		} else {
			b = binary.AppendUvarint(b, uint64(len(e.id)))
			b = append(b, e.id...)
		}
		if e.resume >= 0 {
			b = binary.AppendUvarint(b, uint64(e.resume))
		}
	}
	b = binary.AppendUvarint(b, uint64(len(l.applied)))
	for _, hash := range l.applied {
		b = binary.LittleEndian.AppendUint32(b, hash)
	}
	b = binary.AppendUvarint(b, l.left)
	if l.left > 0 {
		b = binary.AppendUvarint(b, uint64(max(l.leftFrom, 0)))
	}
	return b
}

func clampSince(s int64) int64 { return min(max(s, 0), maxSince) }

// canonicalUUID returns the bytes of an id that comes back from them as it was.
func canonicalUUID(id string) (uuid.UUID, bool) {
	u, err := uuid.Parse(id)
	return u, err == nil && u.String() == id
}

var errMalformed = errors.New("the list of who is behind is malformed")

// decodeList reads what encode has written.
func decodeList(b []byte) (l list, err error) {
	if len(b) > maxList {
		return list{}, fmt.Errorf("%w: it has %d bytes", errMalformed, len(b))
	}
	r := decoder{rest: b}
	// An entry has four bytes or more: a count can't ask for more memory than there is
	// list.
	n := r.count(4)
	base := int64(0)
	if n > 0 {
		base = r.number(maxSince)
		l.entries = make([]entry, 0, n)
	}
	cursor := int64(0)
	for range n {
		since := r.number(maxSince<<2 | 3)
		flags := since & 3
		cursor += r.number(math.MaxInt64 - cursor)
		e := entry{since: base + since>>2, cursor: cursor, resume: -1}
		if flags&withText != 0 {
			e.id = string(r.bytes(r.number(maxID)))
			if _, is := canonicalUUID(e.id); is || e.id == "" {
				r.bad = true
			}
		} else if u, err := uuid.FromBytes(r.bytes(16)); err == nil {
			e.id = u.String()
		}
		if flags&withResume != 0 {
			e.resume = r.number(math.MaxInt64)
		}
		if r.bad {
			return list{}, errMalformed
		}
		l.entries = append(l.entries, e)
	}
	for range r.count(4) {
		l.applied = append(l.applied, binary.LittleEndian.Uint32(r.bytes(4)))
	}
	if l.left = uint64(r.number(math.MaxInt64)); l.left > 0 {
		l.leftFrom = r.number(math.MaxInt64)
	}
	if r.bad || len(r.rest) > 0 {
		return list{}, errMalformed
	}
	return l, nil
}

// decoder reads numbers and bytes, and remembers whether one wasn't there. Then it
// returns zeros.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) number(most int64) int64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > uint64(most) {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return int64(v)
}

// count reads how many items of so many bytes at least follow.
func (d *decoder) count(size int) int {
	return int(d.number(int64(len(d.rest) / size)))
}

var zeros [maxID]byte

func (d *decoder) bytes(n int64) []byte {
	if int64(len(d.rest)) < n {
		d.bad, d.rest = true, nil
		return zeros[:n]
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

// inline returns the metadata that has the list itself.
func inline(encoded []byte) string {
	return Version + inlineMark + base64.RawStdEncoding.EncodeToString(encoded)
}

// inlineLen returns how long that is.
func inlineLen(encoded []byte) int {
	return len(Version) + len(inlineMark) + base64.RawStdEncoding.EncodedLen(len(encoded))
}

func named(name string) string { return Version + namedMark + name }

// errForeign means that metadata was not written by this version: an older one, or
// another program, has committed last.
var errForeign = errors.New("this version has not committed it")

// parseMetadata returns the list that metadata has, or the name of the record that has
// it.
func parseMetadata(metadata string) (l list, name string, err error) {
	rest, ours := strings.CutPrefix(metadata, Version)
	switch {
	case !ours:
		return list{}, "", errForeign
	case rest == "":
		return list{}, "", nil
	case strings.HasPrefix(rest, namedMark) && validName(rest[1:]):
		return list{}, rest[1:], nil
	case strings.HasPrefix(rest, inlineMark):
		encoded, err := base64.RawStdEncoding.Strict().DecodeString(rest[1:])
		if err != nil {
			return list{}, "", errMalformed
		}
		l, err = decodeList(encoded)
		return l, "", err
	}
	return list{}, "", errForeign
}

// validName reports whether a name is one that a store gives: what is committed comes
// from outside.
func validName(name string) bool {
	return name != "" && len(name) <= minInline-len(Version)-1 && !strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z')
	})
}

// fit takes out of the list what its metadata is too long for. Seeks first: those are
// done once more at most; then the positions with the least to catch up on, of which
// least is missed if the partition is handed over.
func (l *list) fit(limit int) []byte {
	for {
		encoded := l.encode()
		over := inlineLen(encoded) - limit
		switch {
		case over <= 0:
			return encoded
		case len(l.applied) > 0:
			l.applied = l.applied[:max(0, len(l.applied)-over/8-1)]
		case len(l.entries) > 0:
			cut := max(0, len(l.entries)-over/40-1)
			if from := l.entries[cut].cursor; l.left == 0 || from < l.leftFrom {
				l.leftFrom = from
			}
			l.left += uint64(len(l.entries) - cut)
			l.entries = l.entries[:cut]
		default:
			return encoded // minInline has room for this
		}
	}
}
