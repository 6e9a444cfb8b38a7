package ingest

// watermark is the offset up to which every chunk of a partition is resolved:
// what may be committed. It is clock-free and without I/O, and not safe for
// concurrent use: the partition's lock guards it.
//
// Chunks are tracked in poll order and resolved in any order; the offset moves
// over resolved chunks only, since Kafka's commit is one number: committing
// chunk 7 would commit an unresolved chunk 6 with it.
type watermark struct {
	offset int64   // the one after the last resolved chunk; -1 until it is known
	window []entry // the first unresolved chunk and all behind it
	base   uint64  // sequence number of window[0]
}

type entry struct {
	last     int64
	epoch    int32
	resolved bool
}

// track adds a chunk behind those that are tracked, and returns its sequence number.
func (w *watermark) track(last int64, epoch int32) (seq uint64) {
	w.window = append(w.window, entry{last: last, epoch: epoch})
	return w.base + uint64(len(w.window)-1)
}

// skip passes over an offset that has no event, such as a transaction's end. It
// reports whether the watermark moved; otherwise it moves with the chunk before.
func (w *watermark) skip(offset int64, epoch int32) (moved bool) {
	if n := len(w.window); n > 0 {
		w.window[n-1].last, w.window[n-1].epoch = offset, epoch
		return false
	}
	w.offset = offset + 1
	return true
}

// resolve marks a chunk as resolved. If it is the first of the window, the
// watermark moves over all resolved chunks there; epoch is that of the last one.
func (w *watermark) resolve(seq uint64) (epoch int32, moved bool) {
	w.window[seq-w.base].resolved = true
	n := 0
	for n < len(w.window) && w.window[n].resolved {
		n++
	}
	if n == 0 {
		return 0, false
	}
	last := w.window[n-1]
	w.window = w.window[n:]
	w.base += uint64(n)
	w.offset = last.last + 1
	return last.epoch, true
}
