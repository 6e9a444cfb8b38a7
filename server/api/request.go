package api

import (
	"context"

	"go.uber.org/zap"
)

// request is what the operations get of a request besides their input: an audit log
// with its ids and its caller.
type request struct{ audit *zap.Logger }

type requestKey struct{}

func withRequest(ctx context.Context, r request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

func requestOf(ctx context.Context) request {
	return ctx.Value(requestKey{}).(request) // the handler sets it for every request
}
