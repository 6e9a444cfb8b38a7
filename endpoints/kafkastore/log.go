package kafkastore

import "github.com/twmb/franz-go/pkg/kgo"

// calm is a client's log, without alarm over what is usual here: two copies that
// write take the transactional id from each other, and the one that has lost it
// tries again. The client calls that fatal.
type calm struct{ kgo.Logger }

func (c calm) Log(level kgo.LogLevel, message string, keyvals ...any) {
	for _, v := range keyvals {
		if err, ok := v.(error); ok && fenced(err) {
			level = max(level, kgo.LogLevelInfo)
		}
	}
	c.Logger.Log(level, message, keyvals...)
}
