package kafkastore

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/sourcegraph/conc/iter"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
)

// Headers of a record.
const (
	// createdHeader is the time of creation. It orders the set.
	createdHeader = "created"
	// markHeader identifies a transaction: its writer reads it back to learn
	// whether the transaction was committed.
	markHeader = "transaction"
)

// table is the content of the topic: an entry for each key.
type table map[string]entry

// entry is the content of one key's records.
type entry struct {
	endpoint endpoints.Endpoint // of the last good record
	good     bool               // there was one
	created  time.Time
	stale    bool // its secrets must be encrypted again

	problem error // of the last record
	// hidden means that a copy with another version or another key may be able to
	// read the last record, and have it in force.
	hidden bool

	deleted bool // of a decoded record only; no entry of a table has it
}

// decodeAll decodes the last record of each key, on all cores: there may be
// thousands.
func decodeAll(last map[string]*kgo.Record, o Options) map[string]entry {
	keys := slices.Collect(maps.Keys(last))
	entries := iter.Map(keys, func(key *string) entry { return decode(last[*key], o) })
	all := make(map[string]entry, len(keys))
	for i, k := range keys {
		all[k] = entries[i]
	}
	return all
}

func decode(r *kgo.Record, o Options) entry {
	if r.Value == nil {
		return entry{deleted: true}
	}
	box := o.Keyring.Box(nil)
	e, err := endpoints.DecodeStored(r.Value, box.Open, o.Options)
	if err != nil {
		v, ok := errors.AsType[endpoints.ValidationErrors](err)
		return entry{problem: err, hidden: ok && !v.NotAnEndpoint()}
	}
	if e.ID != string(r.Key) {
		return entry{problem: errors.New("it holds another endpoint than its key says")}
	}
	if box.Plain() {
		return entry{problem: errClear}
	}
	created, _ := time.Parse(time.RFC3339Nano, header(r, createdHeader)) // zero, hence the oldest, in a record written by hand
	return entry{endpoint: e, good: true, created: created, stale: box.Older()}
}

// errClear is the problem of a record with a secret in the clear. No copy writes one,
// and everybody who may read the topic could read it: whoever wrote it is to use the
// API, or has no key of the ring.
var errClear = errors.New("a connection string or a key in it is in the clear, and in the topic they must be encrypted: create the endpoint through the API, and replace the key")

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// apply replaces entries by newer ones. One that can't be read leaves the endpoint
// as it was. It returns the new problems.
func (t table) apply(newer map[string]entry) (problems []string) {
	for key, e := range newer {
		switch old := t[key]; {
		case e.deleted:
			delete(t, key)
		case e.good:
			t[key] = e
		default:
			old.problem, old.hidden = e.problem, e.hidden
			t[key] = old
			problems = append(problems, fmt.Sprintf("%s: %v", shownKey(key), e.problem))
		}
	}
	slices.Sort(problems)
	return problems
}

// shownKey returns a key for a log, quoted and cut unless it is an id.
func shownKey(key string) string {
	if uuid.Validate(key) == nil {
		return key
	}
	return fmt.Sprintf("%.64q", key)
}

// set returns the endpoints in force, the oldest first, and those that are not in
// force because of a conflict. Every copy that has read as far returns the same.
//
// Only a foreign writer can cause a conflict: then the older endpoint is in force.
func (t table) set() (set []endpoints.Endpoint, conflicts []string) {
	inOrder := make([]entry, 0, len(t))
	for _, e := range t {
		if e.good {
			inOrder = append(inOrder, e)
		}
	}
	slices.SortFunc(inOrder, func(a, b entry) int {
		return cmp.Or(a.created.Compare(b.created), strings.Compare(a.endpoint.ID, b.endpoint.ID))
	})
	set = make([]endpoints.Endpoint, 0, len(inOrder))
	device, names := false, make(map[string]bool)
	for _, e := range inOrder {
		takesDevices := slices.Contains(e.endpoint.EventTypes, endpoints.DeviceMessage)
		switch {
		case len(set) == endpoints.MaxEndpoints:
			conflicts = append(conflicts, fmt.Sprintf("%s: there are %d older ones, and no more are possible", e.endpoint.ID, len(set)))
			continue
		case takesDevices && device:
			conflicts = append(conflicts, e.endpoint.ID+": only one endpoint may take DeviceMessage, and an older one does")
			continue
		case e.endpoint.Name != "" && names[e.endpoint.Name]:
			conflicts = append(conflicts, e.endpoint.ID+": its name is that of an older endpoint")
			continue
		}
		device = device || takesDevices
		names[e.endpoint.Name] = true
		set = append(set, e.endpoint)
	}
	return set, conflicts
}

// unreadable returns an error if there are endpoints and none of them can be read.
func (t table) unreadable() error {
	var first string
	for key, e := range t {
		if e.good {
			return nil
		}
		if e.hidden && (first == "" || key < first) {
			first = key
		}
	}
	if first == "" {
		return nil
	}
	return fmt.Errorf("none of the endpoints in it can be read; endpoint %s: %w", shownKey(first), t[first].problem)
}

// hidden returns an error if there are endpoints that only other copies may be able
// to read: names and DeviceMessage couldn't be checked against them.
func (t table) hidden() error {
	var all []string
	for key, e := range t {
		if e.hidden {
			all = append(all, shownKey(key))
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	more := ""
	if n := len(all) - 3; n > 0 {
		all, more = all[:3], fmt.Sprintf(" and %d more", n)
	}
	return fmt.Errorf("no endpoint can be changed while this copy can't read %s%s: its log says why; "+
		"correct endpoints.secretsKeyFile, or delete these records", strings.Join(all, ", "), more)
}

// stale returns the endpoints whose secrets must be encrypted again.
func (t table) stale() (all []entry) {
	for _, e := range t {
		if e.good && e.stale && e.problem == nil {
			all = append(all, e)
		}
	}
	return all
}
