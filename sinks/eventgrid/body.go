package eventgrid

import (
	"twinegress/internal/event"
)

// appendEvent appends an event as Event Grid takes it: its own bytes, but
// without `topic`, which only the service may set, and without a
// `metadataVersion` other than "1", the only one that it knows. What stands
// between the members that are cut out is copied as it is.
func appendEvent(buf, doc []byte) []byte {
	cut, before := false, len(buf)
	from, to := -1, 0 // the members that are to be copied next; from -1: none
	next := func() {
		if from < 0 {
			return
		}
		separator := byte(',')
		if len(buf) == before {
			separator = '{'
		}
		buf = append(append(buf, separator), doc[from:to]...)
		from = -1
	}
	event.Members(doc, func(m event.Member) bool {
		if refused(doc, m) {
			cut = true
			next()
			return true
		}
		if from < 0 {
			from = m.KeyStart - 1 // with its quote
		}
		to = m.End
		return true
	})
	if !cut {
		return append(buf, doc...)
	}
	next()
	if len(buf) == before {
		buf = append(buf, '{')
	}
	return append(buf, '}')
}

func refused(doc []byte, m event.Member) bool {
	key := doc[m.KeyStart:m.KeyEnd]
	return event.KeyIs(key, "topic") ||
		event.KeyIs(key, "metadataVersion") && string(doc[m.Start:m.End]) != `"1"`
}
