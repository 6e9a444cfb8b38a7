package eventgrid

import (
	"twinegress/internal/event"
)

// appendEvent appends an event as Event Grid takes it: its own bytes, but
// without `topic`, which only the service may set, and without a
// `metadataVersion` other than "1", the only one that it knows. Nearly no
// event needs the second form, whose members are copied one by one.
func appendEvent(buf, doc []byte) []byte {
	cut := false
	event.Members(doc, func(m event.Member) bool {
		cut = refused(doc, m)
		return !cut
	})
	if !cut {
		return append(buf, doc...)
	}
	buf = append(buf, '{')
	first := true
	event.Members(doc, func(m event.Member) bool {
		if refused(doc, m) {
			return true
		}
		if !first {
			buf = append(buf, ',')
		}
		first = false
		buf = append(buf, doc[m.KeyStart-1:m.End]...)
		return true
	})
	return append(buf, '}')
}

func refused(doc []byte, m event.Member) bool {
	key := doc[m.KeyStart:m.KeyEnd]
	return event.KeyIs(key, "topic") ||
		event.KeyIs(key, "metadataVersion") && string(doc[m.Start:m.End]) != `"1"`
}
