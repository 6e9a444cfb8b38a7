// Package heaptest measures, for tests, what is kept in memory.
package heaptest

import "runtime"

// Bytes returns the bytes that are in use. What else runs in the process counts, too.
func Bytes() int64 {
	runtime.GC()
	runtime.GC() // what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // no heap is as large
}
