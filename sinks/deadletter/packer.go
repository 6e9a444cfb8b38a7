package deadletter

import (
	"bytes"

	"github.com/klauspost/compress/zstd"
	"github.com/twmb/franz-go/pkg/kgo"
)

// packer compresses a large letter at least as well as most producers do, so that
// what fitted the ingest topic fits the dead-letter topic. The client's own zstd
// doesn't see further back than 64 KiB.
type packer struct {
	zstd     *zstd.Encoder
	fallback kgo.Compressor // for brokers before 2.1, which don't know zstd
}

func newPacker() (packer, error) {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return packer{}, err
	}
	fallback, err := kgo.DefaultCompressor(kgo.GzipCompression())
	return packer{encoder, fallback}, err
}

// Compress is kgo.Compressor's.
func (p packer) Compress(dst *bytes.Buffer, src []byte, flags ...kgo.CompressFlag) ([]byte, kgo.CompressionCodecType) {
	for _, f := range flags {
		if f&kgo.CompressDisableZstd != 0 {
			return p.fallback.Compress(dst, src, flags...)
		}
	}
	return p.zstd.EncodeAll(src, dst.Bytes()), kgo.CodecZstd
}
