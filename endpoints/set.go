package endpoints

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// MaxEndpoints is how many endpoints a set may have: twice the ten thousand that
// twinegress is made for. Without a bound, a file or a client that adds one after
// the other takes all memory, and each scrape of the metrics seconds.
const MaxEndpoints = 20_000

// tooMany returns the error of a set with n endpoints. It is a conflict: each may be
// valid by itself.
func tooMany(n int) error {
	return ValidationErrors{{Message: fmt.Sprintf("%d endpoints are too many: there may be %d", n, MaxEndpoints), Conflict: true}}
}

// Prepare returns the set with canonical spellings, defaults and ids, or
// everything that is wrong with it, as ValidationErrors. It doesn't change eps.
//
// An endpoint without an id gets one that is the same after every restart and
// in every copy of the process: derived from its name, else from its type, host
// and path, and its rank among those that agree in all three.
func Prepare(eps []Endpoint, o Options) ([]Endpoint, error) {
	return prepare(eps, make([]ValidationErrors, len(eps)), o)
}

// prepare is Prepare for endpoints with known violations: the decoder's of a
// field replace the validation's.
func prepare(eps []Endpoint, known []ValidationErrors, o Options) ([]Endpoint, error) {
	if len(eps) > MaxEndpoints {
		return nil, tooMany(len(eps))
	}
	out := make([]Endpoint, len(eps))
	for i, e := range eps {
		out[i] = e.canonical()
	}
	// Validation comes before ids are assigned, so that an invalid id is reported
	// and not overwritten.
	var all ValidationErrors
	for i, e := range out {
		for _, v := range known[i].merge(e.violations(o)) {
			v.Endpoint = label(i, e)
			all.append(v)
		}
	}
	assignIDs(out)
	all.append(setViolations(out, func(int) bool { return true }, label)...)
	if err := all.err(); err != nil {
		return nil, err
	}
	for i := range out {
		out[i].orderStart(seekOfFile)
	}
	return out, nil
}

// label returns the name of an endpoint by its position in the file.
func label(i int, e Endpoint) string {
	if e.Name == "" {
		return fmt.Sprintf("endpoints[%d]", i)
	}
	return fmt.Sprintf("endpoints[%d] (%s)", i, quotable(e.Name))
}

// setViolations returns the conflicts within a set, in which every endpoint has
// its id. Of two that are in conflict, the new one is at fault; if both or
// neither are new, the later one.
func setViolations(eps []Endpoint, isNew func(i int) bool, label func(int, Endpoint) string) ValidationErrors {
	var v ValidationErrors
	firstDevice, firstWith := -1, make(map[string]int, len(eps))
	named := make(map[string]int)
	conflict := func(i, with int, field, before, after string) {
		v.append(Violation{
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
			continue // the id is derived from it, or was copied with it
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

// idNamespace is the UUID namespace of derived ids. It must never change: every
// derived id, and with it every metric's label, would change.
var idNamespace = uuid.MustParse("5b0a1bd4-4f0c-5d0e-9c39-7f2f4d1f6a11")

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
		// A derived id may be explicit by now, because a store wrote it to its
		// file, and its endpoint renamed or moved since.
		for eps[i].ID == "" || explicit[eps[i].ID] {
			// No part can contain a zero byte, so no two different tuples make
			// the same string.
			ranked := of
			if e.Name == "" || rank[of] > 0 {
				ranked = fmt.Sprintf("%s\x00%d", of, rank[of])
			}
			rank[of]++
			eps[i].ID = uuid.NewSHA1(idNamespace, []byte(ranked)).String()
		}
	}
}
