package kafka

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A batch of a small topic may unpack to unpackRatio times its bytes, and unpackFree:
// our own snappy packs to a twentieth at most, and a broker that packs anew, whose
// topic it is, ids that are all different.
const unpackRatio, unpackFree = 64, 16 << 10

// Sparing returns the option of a consumer that reads a topic of our own, where batches
// have no more than limit bytes. The client unpacks all batches of a fetch before it
// returns the first, and a batch of 300 bytes can have 8 MiB: a bound of one batch, the
// client's, is none of a fetch. Of a refused one it returns kgo.ErrDecompressTooLarge.
func Sparing(limit int32) (kgo.Opt, error) {
	client, err := kgo.NewClient(kgo.MaxDecompressBatchBytes(int(limit))) // has the decompressor with that bound
	if err != nil {
		return nil, err
	}
	defer client.Close()
	own, is := client.OptValue(kgo.WithDecompressor).(kgo.Decompressor)
	if !is {
		return nil, fmt.Errorf("BUG: the Kafka client has no decompressor, but %T", client.OptValue(kgo.WithDecompressor))
	}
	return kgo.WithDecompressor(sparing{own}), nil
}

type sparing struct{ kgo.Decompressor }

func (s sparing) Decompress(packed []byte, codec kgo.CompressionCodecType) ([]byte, error) {
	batch, err := s.Decompressor.Decompress(packed, codec)
	if err == nil && len(batch) > unpackFree+unpackRatio*len(packed) {
		return nil, kgo.ErrMaxDecompress
	}
	return batch, err
}
