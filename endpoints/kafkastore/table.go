package kafkastore

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"twinegress/endpoints"
)

// Headers of a record.
const (
	// createdHeader is when its endpoint was created: the order of the set.
	createdHeader = "created"
	// markHeader is the same for the records of one transaction, and for no
	// others: whoever wrote it finds out by it whether it was committed.
	markHeader = "transaction"
)

// table is what the topic says: for each key its last record.
type table map[string]entry

// entry is what the records of one key say.
type entry struct {
	endpoint endpoints.Endpoint // of the last good record
	good     bool               // there was one
	created  time.Time
	stale    bool // its secrets are to be encrypted anew

	problem error // what is wrong with the last record
	// hidden says that the last record is an endpoint for someone else, who has
	// another version or another key: it may be in force there.
	hidden bool

	deleted bool // by a record that was just decoded; such an entry is in no table
}

// decodeAll reads the last record of each key, of thousands in a moment.
func decodeAll(last map[string]*kgo.Record, o Options) map[string]entry {
	keys := slices.Collect(maps.Keys(last))
	entries := make([]entry, len(keys))
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(keys)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(keys)); i = next.Add(1) - 1 {
				entries[i] = decode(last[keys[i]], o)
			}
		})
	}
	workers.Wait()
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
		var v endpoints.ValidationErrors
		return entry{problem: err, hidden: errors.As(err, &v) && !v.NotAnEndpoint()}
	}
	if e.ID != string(r.Key) {
		return entry{problem: errors.New("it holds another endpoint than its key says")}
	}
	created, _ := time.Parse(time.RFC3339Nano, header(r, createdHeader)) // by hand without: the oldest
	return entry{endpoint: e, good: true, created: created, stale: box.Older() || box.Plain()}
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// take puts newer entries in the place of older ones. One that can't be read
// leaves the endpoint as it was. It returns the problems that are new.
func (t table) take(newer map[string]entry) (problems []string) {
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

// shownKey is a key as a log shows it: anything may be in a topic.
func shownKey(key string) string {
	if uuid.Validate(key) == nil {
		return key
	}
	return fmt.Sprintf("%.64q", key)
}

// set is the endpoints in force, the oldest first, and which can't be although
// their records are good. Every copy that read as far makes the same of it.
//
// Our own writers don't let a conflict happen. Whoever else can write to the
// topic can, and then the older endpoint stays.
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

// unreadable is an error if there are endpoints and none of them can be read.
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

// hidden is an error while there are endpoints that only others can read: what
// must be unique among all can't be made sure of then.
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

// stale are the endpoints whose secrets are to be encrypted anew.
func (t table) stale() (all []entry) {
	for _, e := range t {
		if e.good && e.stale && e.problem == nil {
			all = append(all, e)
		}
	}
	return all
}
