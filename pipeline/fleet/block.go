package fleet

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// blocks is into how many records the endpoints of a copy are divided, each by
	// its id: with ten thousand, 80 are in one. It is the same for any number of
	// endpoints: where it changed, an endpoint would be in two blocks for a while.
	blocks = 128
	// maxBlock bounds a block's bytes. A busy endpoint takes 70, one that fails up to
	// 300.
	maxBlock = 256 << 10
	// maxEntries bounds the endpoints of a block.
	maxEntries = 2000
	// version is the first byte of a block, and the v of other records. Records of
	// another version are skipped.
	version = 1
)

// blockOf returns the block of an endpoint. Ids are random, or hashes.
func blockOf(id [16]byte) int { return int(id[15]) % blocks }

// eachEntry reads a block. f gets every entry that is in order before the first that
// is not.
func eachEntry(b []byte, f func(*entry)) error {
	if len(b) == 0 || len(b) > maxBlock {
		return fmt.Errorf("a block of %d bytes", len(b))
	}
	if b[0] != version {
		return fmt.Errorf("a block of version %d", b[0])
	}
	b = b[1:]
	var e entry
	for i := 0; len(b) > 0; i++ {
		one, n := protowire.ConsumeBytes(b)
		if n < 0 || i >= maxEntries {
			return errMalformed
		}
		if err := e.read(one); err != nil {
			return err
		}
		f(&e)
		b = b[n:]
	}
	return nil
}

// appendEntry adds an entry to a block, which it begins where that is empty. scratch
// is overwritten.
func appendEntry(block []byte, e *entry, scratch []byte) (longer, buffer []byte) {
	if len(block) == 0 {
		block = append(block, version)
	}
	scratch = e.append(scratch[:0])
	return protowire.AppendBytes(block, scratch), scratch
}
