package catchup

import (
	"testing"

	"go.uber.org/zap"

	"twinegress/internal/event"
	"twinegress/sinks"
)

// What it costs each second, for each partition, that endpoints are behind.
func BenchmarkMetadata(b *testing.B) {
	for title, n := range map[string]int{"nobody": 0, "a hundred": 100, "ten thousand": 10_000} {
		b.Run(title, func(b *testing.B) {
			s := (&senders{behind: sinks.NewBehind(), all: make(map[string]*sinks.Sender)}).add(n)
			k, err := NewKeeper(KeeperOptions{Behind: s.behind, Sender: s.sender, Log: zap.NewNop()})
			if err != nil {
				b.Fatal(err)
			}
			defer k.Close()
			o := &event.Ownership{Topic: events}
			if err := k.Assigned(b.Context(), o, 1000, Version); err != nil {
				b.Fatal(err)
			}
			for i, one := range s.order {
				one.Seek(o, int64(i), -1)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.Metadata(b.Context(), o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
