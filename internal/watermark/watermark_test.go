package watermark

import (
	"math/rand/v2"
	"testing"
)

// The offset is behind the contiguous prefix of what is resolved, whatever the
// order, and passes over what is skipped with the chunk before it.
func TestWatermark(t *testing.T) {
	type chunk struct {
		seq      uint64
		last     int64
		resolved bool
	}
	for range 500 {
		w := At(-1)
		var chunks []*chunk
		start := int64(rand.IntN(100))
		next := start
		w.SetOffset(start)
		want := func() int64 {
			offset := start
			for _, c := range chunks {
				if !c.resolved {
					break
				}
				offset = c.last + 1
			}
			return offset
		}
		for range 200 {
			before := w.Offset()
			var moved bool
			var epoch int32
			switch op := rand.IntN(10); {
			case op < 4:
				next += 1 + int64(rand.IntN(5))
				chunks = append(chunks, &chunk{seq: w.Track(next-1, int32(next%7)), last: next - 1})
			case op < 5:
				next++
				open := want() < next-1
				if len(chunks) == 0 {
					start = next
				} else {
					chunks[len(chunks)-1].last = next - 1
				}
				if moved = w.Skip(next-1, int32(next%7)); moved == open {
					t.Fatalf("skipped to %d, moved: %v", next, moved)
				}
				epoch = int32(next % 7)
			default:
				i := rand.IntN(len(chunks) + 1)
				if i == len(chunks) || chunks[i].resolved {
					continue
				}
				chunks[i].resolved = true
				epoch, moved = w.Resolve(chunks[i].seq)
			}
			if w.Offset() != want() || moved != (w.Offset() > before) || w.Next() != next {
				t.Fatalf("at %d, next %d, moved: %v; want %d, %d", w.Offset(), w.Next(), moved, want(), next)
			}
			if moved && epoch != int32(w.Offset()%7) {
				t.Fatalf("moved to %d with the epoch %d", w.Offset(), epoch)
			}
			if (w.Tracked() == 0) != (w.Offset() == next) {
				t.Fatalf("%d tracked at %d of %d", w.Tracked(), w.Offset(), next)
			}
		}
	}
}
