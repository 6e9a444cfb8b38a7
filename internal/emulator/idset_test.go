package emulator

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestIDSet adds ids that look alike, each several times, and in no order.
func TestIDSet(t *testing.T) {
	ids := []string{
		"", "/", "7", "/7", "a/7", "a/07", "a/007", "a/0", "a/00", "a/", "a/-7", "a/+7", "a/7 ", "a/7x", "a/x7",
		"a//7", "a/7/", "b/7", "a/7/7", "a/519", "a/520", "a/1031",
		"a/999999999999999999", "a/9999999999999999999", "a/18446744073709551616", "a/18446744073709551623",
		"0198f6a2-7f0e-7cc1-8000-000000000007", "0198f6a2-7f0e-7cc1-8000-000000000008", "ab/ä7", "ab/7\x00",
	}
	for partition := range 3 {
		for offset := range 3000 {
			ids = append(ids, fmt.Sprintf("digitaltwins-events/%d/%d", partition, offset*(1+partition)))
		}
	}
	s := newIDSet()
	for range 2 { // as new after a reset
		for range 3 {
			rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			for _, id := range ids {
				s.add([]byte(id))
			}
			if s.count != int64(len(ids)) {
				t.Fatalf("%d ids, counted %d", len(ids), s.count)
			}
		}
		s.reset()
	}
}
