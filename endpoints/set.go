package endpoints

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// Prepare makes a set fit for use: canonical spellings, defaults and an id for
// every endpoint, all of it valid. Or it reports everything that is wrong, as
// ValidationErrors. It leaves eps alone.
//
// An endpoint without an id gets one that is the same after every restart and
// in every copy of the process: made of its name, else of its type, host and
// path, and its rank among those that agree in all three.
func Prepare(eps []Endpoint, o Options) ([]Endpoint, error) {
	return prepare(eps, make([]ValidationErrors, len(eps)), o)
}

// prepare is Prepare for endpoints of which something is known to be wrong
// already: what a decoder said about a field replaces what validation would.
func prepare(eps []Endpoint, known []ValidationErrors, o Options) ([]Endpoint, error) {
	out := make([]Endpoint, len(eps))
	for i, e := range eps {
		out[i] = e.canonical()
	}
	// Validation comes first, so that a faulty id is reported as the user's
	// and never overwritten.
	var all ValidationErrors
	for i, e := range out {
		for _, v := range known[i].and(e.violations(o)) {
			v.Endpoint = label(i, e)
			all = append(all, v)
		}
	}
	assignIDs(out)
	all = append(all, setViolations(out, func(int) bool { return true }, label)...)
	if err := all.err(); err != nil {
		return nil, err
	}
	return out, nil
}

// label names an endpoint of a set so that its user finds it in the file.
func label(i int, e Endpoint) string {
	if e.Name == "" {
		return fmt.Sprintf("endpoints[%d]", i)
	}
	return fmt.Sprintf("endpoints[%d] (%s)", i, quotable(e.Name))
}

// setViolations is what only a set can get wrong. Every endpoint has its id. Of
// two that are in conflict the one that is new is at fault; of two of the same
// kind, the later one.
func setViolations(eps []Endpoint, isNew func(i int) bool, label func(int, Endpoint) string) ValidationErrors {
	var v ValidationErrors
	firstDevice, firstWith := -1, make(map[string]int, len(eps))
	named := make(map[string]int)
	conflict := func(i, with int, field, before, after string) {
		v = append(v, Violation{
			Endpoint: label(i, eps[i]), Field: field,
			Message: before + label(with, eps[with]) + after, Conflict: true,
		})
	}
	order := make([]int, 0, len(eps))
	for _, pass := range []bool{false, true} {
		for i := range eps {
			if isNew(i) == pass {
				order = append(order, i)
			}
		}
	}
	for _, i := range order {
		e := eps[i]
		if slices.Contains(e.EventTypes, DeviceMessage) {
			if firstDevice >= 0 {
				conflict(i, firstDevice, "eventTypes", "only one endpoint may take DeviceMessage, and ", " does")
			} else {
				firstDevice = i
			}
		}
		if first, taken := named[e.Name]; taken {
			conflict(i, first, "name", "is already that of ", "")
			continue // the id was made of it, or copied along with it
		}
		if e.Name != "" {
			named[e.Name] = i
		}
		if first, taken := firstWith[e.ID]; taken {
			conflict(i, first, "id", "is already that of ", "")
			continue
		}
		firstWith[e.ID] = i
	}
	return v
}

// idSpace is the namespace of ids made of names and places. Never change it:
// every derived id, and with it every metric's label, would change.
var idSpace = uuid.MustParse("5b0a1bd4-4f0c-5d0e-9c39-7f2f4d1f6a11")

func assignIDs(eps []Endpoint) {
	explicit := make(map[string]bool, len(eps))
	for _, e := range eps {
		explicit[e.ID] = true
	}
	rank := map[string]int{}
	for i, e := range eps {
		if e.ID != "" {
			continue
		}
		of := "name\x00" + e.Name
		if e.Name == "" {
			of = strings.Join([]string{"place", string(e.Type), e.Host(), e.Path}, "\x00")
		}
		// An id of this kind may have been written down, as a store does when
		// it writes its file, and its endpoint renamed or moved since.
		for eps[i].ID == "" || explicit[eps[i].ID] {
			// A zero byte can't be part of any of the pieces, so no two
			// different tuples make the same string.
			ranked := of
			if e.Name == "" || rank[of] > 0 {
				ranked = fmt.Sprintf("%s\x00%d", of, rank[of])
			}
			rank[of]++
			eps[i].ID = uuid.NewSHA1(idSpace, []byte(ranked)).String()
		}
	}
}
