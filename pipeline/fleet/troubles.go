package fleet

import (
	"cmp"
	"slices"
	"time"
)

// Trouble is something that is wrong, in words.
type Trouble struct {
	Severity string     `json:"severity" enum:"critical,warning"`
	What     string     `json:"what"`
	Endpoint string     `json:"endpoint" doc:"its id; empty if it is about none"`
	Name     string     `json:"name" doc:"of the endpoint"`
	Copies   []string   `json:"copies" doc:"the ids of those that have it"`
	Since    *time.Time `json:"since" doc:"null: not known"`
	Action   string     `json:"action" doc:"what to do"`
	Runbook  string     `json:"runbook" doc:"anchor in docs/operations.md"`
}

// The values of a trouble's severity.
const (
	Critical = "critical" // events are lost, or wait, until somebody does something
	Warning  = "warning"
)

// troubles returns what is wrong in a report, the worst first. It is a function of
// the report alone.
func troubles(r *Report) []Trouble {
	found := []Trouble{}
	for _, c := range r.Copies {
		if c.Stale {
			found = append(found, Trouble{
				Severity: Critical, What: "Copy " + c.Instance + " is silent", Copies: []string{c.ID}, Since: &c.SaidAt,
				Action: "Look whether it runs", Runbook: "copies",
			})
		}
	}
	slices.SortStableFunc(found, func(a, b Trouble) int { return cmp.Compare(a.Severity, b.Severity) })
	return found
}
