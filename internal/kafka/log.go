package kafka

import (
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"
)

// Logger adapts a zap logger for the clients' warnings.
func Logger(log *zap.Logger) kgo.Logger {
	return &clientLog{Logger: kzap.New(log.Named("kafka"), kzap.Level(kgo.LogLevelWarn)), dials: make(map[any]dials)}
}

// clientLog leaves out what is for us, and what we say ourselves.
type clientLog struct {
	kgo.Logger

	mu    sync.Mutex
	dials map[any]dials // by address
}

// dials are connections to a broker that fail, one after the other.
type dials struct{ last, said time.Time }

const (
	// A broker that can't be connected to is tried several times a second. It is said at
	// first, and while it goes on rarely: an outage of all brokers is said by who asks
	// them, and so is its end.
	dialSayAgain = 10 * time.Minute
	// dialPause without a failure ends such an outage: the client's longest pause between
	// two tries is less.
	dialPause = time.Minute
	// maxDials bounds the addresses that are remembered: brokers say what theirs are.
	maxDials = 1000
)

// Log implements kgo.Logger.
func (c *clientLog) Log(level kgo.LogLevel, message string, keyvals ...any) {
	switch {
	// The client says that the partition isn't read any more: it is, behind the batch, and
	// whoever moves the client says which batch that was.
	case strings.HasPrefix(message, "batch decompresses larger than MaxDecompressBatchBytes"),
		// It says so for each partition, every second: who commits says it once.
		message == "unable to commit offset for topic partition",
		// Its hook for the group has the same error, and what follows from it.
		message == "group manage loop errored", message == "join group failed", message == "sync group failed":
		return
	case strings.HasPrefix(message, "unable to open connection to broker") && !c.sayDial(valueOf("addr", keyvals), time.Now()):
		return
	}
	c.Logger.Log(level, message, keyvals...)
}

// sayDial reports whether it is to be said that a connection failed.
func (c *clientLog) sayDial(addr any, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.dials) >= maxDials {
		clear(c.dials)
	}
	d := c.dials[addr]
	say := now.Sub(d.last) > dialPause || now.Sub(d.said) >= dialSayAgain
	if d.last = now; say {
		d.said = now
	}
	c.dials[addr] = d
	return say
}

// valueOf returns what a key has for its value.
func valueOf(key string, keyvals []any) any {
	for i := 0; i+1 < len(keyvals); i += 2 {
		if keyvals[i] == key {
			return keyvals[i+1]
		}
	}
	return nil
}
