// Package watermark finds out up to where everything is done that is done in any
// order. It is clock-free and without I/O.
package watermark

// Watermark is the offset up to which every chunk of a reading is resolved: what
// may be committed, or where it is to begin again. It is not safe for concurrent
// use.
//
// Chunks are tracked in the order of reading and resolved in any order; the offset
// moves over resolved chunks only, since what is remembered of them is one number:
// to remember chunk 7 would pass over an unresolved chunk 6.
type Watermark struct {
	offset int64   // the one after the last resolved chunk
	window []entry // the first unresolved chunk and all behind it
	base   uint64  // sequence number of window[0]
}

type entry struct {
	last     int64
	epoch    int32
	resolved bool
}

// At returns a watermark at an offset, with nothing tracked; -1 is one that isn't
// known yet.
func At(offset int64) Watermark { return Watermark{offset: offset} }

// Offset returns the offset behind the last resolved chunk; -1 until it is known.
func (w *Watermark) Offset() int64 { return w.offset }

// SetOffset sets where the watermark is. Nothing may be tracked.
func (w *Watermark) SetOffset(offset int64) { w.offset = offset }

// Next returns the offset behind all that is tracked; -1 if that is not known.
func (w *Watermark) Next() int64 {
	if n := len(w.window); n > 0 {
		return w.window[n-1].last + 1
	}
	return w.offset
}

// Tracked returns the number of chunks from the first unresolved one on.
func (w *Watermark) Tracked() int { return len(w.window) }

// Track adds a chunk behind those that are tracked, and returns its sequence number.
func (w *Watermark) Track(last int64, epoch int32) (seq uint64) {
	w.window = append(w.window, entry{last: last, epoch: epoch})
	return w.base + uint64(len(w.window)-1)
}

// Skip passes over an offset that has no event, such as a transaction's end. It
// reports whether the watermark moved; otherwise it moves with the chunk before.
func (w *Watermark) Skip(offset int64, epoch int32) (moved bool) {
	if n := len(w.window); n > 0 {
		w.window[n-1].last, w.window[n-1].epoch = offset, epoch
		return false
	}
	w.offset = offset + 1
	return true
}

// Resolve marks a chunk as resolved. If it is the first of the window, the
// watermark moves over all resolved chunks there; epoch is that of the last one.
func (w *Watermark) Resolve(seq uint64) (epoch int32, moved bool) {
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
