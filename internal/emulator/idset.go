package emulator

import "hash/maphash"

// idSeed makes ids comparable by hash within this process.
var idSeed = maphash.MakeSeed()

// idSet counts distinct message ids.
//
// An id that ends in a slash and a number, as twinegress's do (topic, partition,
// offset), is a bit in a page that it shares with its neighbours: offsets arrive
// nearly in order, so the next id's page is in the CPU's cache. Any other id is
// stored as its hash. With hashes alone, of a million ids, cache misses were two
// fifths of a hub's cost, on a core that a benchmark's broker and load share.
type idSet struct {
	hashes map[uint64]struct{}
	pages  map[idPageKey]*idPage
	key    idPageKey // of page
	page   *idPage   // the last one used, or nil
	count  int64
}

// idPage has a bit for each of 512 ids: one cache line.
type idPage [8]uint64

type idPageKey struct {
	before uint64 // hash of the id up to the number
	high   uint64 // the number's bits above the page's
}

func newIDSet() *idSet {
	return &idSet{hashes: make(map[uint64]struct{}), pages: make(map[idPageKey]*idPage)}
}

// add adds an id. It keeps no reference to it.
func (s *idSet) add(id []byte) {
	before, number, ok := cutNumber(id)
	if !ok {
		before := len(s.hashes)
		s.hashes[maphash.Bytes(idSeed, id)] = struct{}{}
		s.count += int64(len(s.hashes) - before)
		return
	}
	key := idPageKey{maphash.Bytes(idSeed, before), number >> 9}
	if s.page == nil || s.key != key {
		page := s.pages[key]
		if page == nil {
			page = new(idPage)
			s.pages[key] = page
		}
		s.key, s.page = key, page
	}
	word, bit := &s.page[number>>6&7], uint64(1)<<(number&63)
	if *word&bit == 0 {
		*word |= bit
		s.count++
	}
}

func (s *idSet) reset() {
	clear(s.hashes)
	clear(s.pages)
	s.page, s.count = nil, 0
}

// cutNumber cuts an id that ends in a slash and a number before the number. It
// must be canonical: 07 would be another id than 7.
func cutNumber(id []byte) (before []byte, number uint64, ok bool) {
	const digits = 18 // always fit in a uint64
	for i := len(id) - 1; i >= 0 && i >= len(id)-1-digits; i-- {
		if id[i] != '/' {
			continue
		}
		tail := id[i+1:]
		if len(tail) == 0 || tail[0] == '0' && len(tail) > 1 {
			return nil, 0, false
		}
		for _, c := range tail {
			if c < '0' || c > '9' {
				return nil, 0, false
			}
			number = number*10 + uint64(c-'0')
		}
		return id[:i], number, true
	}
	return nil, 0, false
}
