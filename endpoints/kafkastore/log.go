package kafkastore

import "github.com/twmb/franz-go/pkg/kgo"

// quietLogger lowers the level of errors that are normal here: copies that write
// fence each other, and the fenced one retries. The client logs that as fatal.
type quietLogger struct{ kgo.Logger }

func (c quietLogger) Log(level kgo.LogLevel, message string, keyvals ...any) {
	for _, v := range keyvals {
		if err, ok := v.(error); ok && fenced(err) {
			level = max(level, kgo.LogLevelInfo)
		}
	}
	c.Logger.Log(level, message, keyvals...)
}
