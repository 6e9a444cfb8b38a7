package api

import (
	"context"

	"go.uber.org/zap"
)

// request is what the operations know of the request beyond their input: an
// audit log that names it and who it is from.
type request struct{ audit *zap.Logger }

type requestKey struct{}

func withRequest(ctx context.Context, r request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

func requestOf(ctx context.Context) request {
	return ctx.Value(requestKey{}).(request) // every request passes the handler
}
