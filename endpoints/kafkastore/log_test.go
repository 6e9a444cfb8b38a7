package kafkastore

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

type lines []string

func (*lines) Level() kgo.LogLevel { return kgo.LogLevelWarn }

func (l *lines) Log(level kgo.LogLevel, message string, _ ...any) {
	*l = append(*l, level.String()+" "+message)
}

func TestFencingIsNoAlarm(t *testing.T) {
	var got lines
	log := quietLogger{&got}
	log.Log(kgo.LogLevelError, "fatal InitProducerID error", "broker", "1", "err", fmt.Errorf("x: %w", kerr.InvalidProducerEpoch))
	log.Log(kgo.LogLevelError, "fatal InitProducerID error", "err", kerr.TransactionalIDAuthorizationFailed)
	log.Log(kgo.LogLevelDebug, "fenced", "err", kerr.ProducerFenced)
	if want := "[INFO fatal InitProducerID error ERROR fatal InitProducerID error DEBUG fenced]"; fmt.Sprint(got) != want {
		t.Errorf("logged %v, want %s", got, want)
	}
}
