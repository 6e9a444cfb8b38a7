package kafkastore

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/zap"

	"twinegress/endpoints"
)

// audit logs what changed between two sets and wasn't written by this copy, whose
// API has logged that already. It is another copy's change, or that of whoever else
// may write the topic: there it has no name. It must be called with s.mu held.
func (s *Store) audit(before, after []endpoints.Endpoint, last map[string]*kgo.Record) {
	was := make(map[string]endpoints.Endpoint, len(before))
	for _, e := range before {
		was[e.ID] = e
	}
	report := func(what string, e endpoints.Endpoint, more ...zap.Field) {
		fields := append([]zap.Field{zap.Bool("audit", true), zap.String("topic", s.o.Topic), zap.Inline(e)}, more...)
		if r := last[e.ID]; r != nil {
			mark := header(r, markHeader)
			if _, own := s.expected[mark]; own {
				return
			}
			fields = append(fields, zap.Int64("offset", r.Offset), zap.Bool("byTransaction", mark != ""))
		}
		s.auditLog.Info(what, fields...)
	}
	for _, e := range after {
		old, known := was[e.ID]
		delete(was, e.ID)
		if !known {
			report("endpoint created through the topic", e)
		} else if fields := endpoints.Diff(old, e).Fields; len(fields) > 0 {
			report("endpoint changed through the topic", e, zap.Strings("fields", fields))
		}
	}
	for _, e := range before {
		if _, gone := was[e.ID]; gone {
			report("endpoint deleted through the topic", e)
		}
	}
}

// maxReported is how many of the records that can't be used are reported at a time:
// whoever writes a million of them writes no million lines into the log.
const maxReported = 20

// firstOf returns the first of some problems, and how many more there are.
func firstOf(problems []string) []string {
	if more := len(problems) - maxReported; more > 0 {
		return append(slices.Clip(problems[:maxReported]), fmt.Sprintf("and %d more", more))
	}
	return problems
}
