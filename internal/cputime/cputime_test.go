//go:build unix

package cputime

import "testing"

func TestProcess(t *testing.T) {
	before, known := Process()
	if !known {
		t.Fatal("the processor time is not known")
	}
	for n := 0; ; n++ { // the test's time limit ends it if nothing is counted
		if after, _ := Process(); after > before {
			return
		}
	}
}
