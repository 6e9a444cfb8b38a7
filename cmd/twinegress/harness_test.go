package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/e2e/env"
	"twinegress/internal/config"
)

// asProgram makes the test binary behave as twinegress itself, so that tests
// can start processes without building one.
const asProgram = "TWINEGRESS_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		_ = os.Unsetenv(asProgram)
		main()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// running is the program in this process.
type running struct {
	*app.App
	env    *env.Env
	log    env.Output // at its most talkative
	cancel context.CancelFunc
	done   chan error
}

// load reads the configuration of an environment.
func load(e *env.Env, more env.Settings) config.Config {
	e.T.Helper()
	cfg, err := config.Load(config.Sources{Overrides: e.Settings(more)})
	e.Must(err)
	return cfg
}

// start starts the program, which ends with the test.
func start(e *env.Env, o app.Options) *running {
	e.T.Helper()
	r := &running{env: e, done: make(chan error, 1)}
	o.Version = version
	o.Log = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(&r.log), zap.DebugLevel))
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	var err error
	if r.App, err = app.New(ctx, o); err != nil {
		cancel()
		e.T.Fatal(err)
	}
	go func() { r.done <- r.Run(ctx) }()
	e.T.Cleanup(func() {
		if err := r.stop(); err != nil {
			e.T.Errorf("stopping: %v", err)
		}
	})
	return r
}

// stop ends the program in order, once, and returns its error.
func (r *running) stop() error {
	r.cancel()
	err, open := <-r.done
	if open {
		close(r.done)
	}
	return err
}

// settled blocks until so many records were read and every event has its outcome.
func (r *running) settled(records int) {
	r.env.T.Helper()
	r.env.AwaitSettled(records, r.Pipeline.Status)
}

// shell runs commands in this process, with what the environment of a shell
// would give them.
type shell struct{ t *testing.T }

// command runs one and returns its output and its exit code.
func (s shell) command(in string, args ...string) (out string, code int, err error) {
	s.t.Helper()
	out, _, code, err = s.run(in, args...)
	return out, code, err
}

// all runs a command and returns what it writes to standard output and to standard
// error.
func (s shell) all(in string, args ...string) (all string, code int) {
	s.t.Helper()
	out, errs, code, _ := s.run(in, args...)
	return out + errs, code
}

func (s shell) run(in string, args ...string) (out, errs string, code int, err error) {
	s.t.Helper()
	root := rootCommand()
	var b, e bytes.Buffer
	root.SetIn(strings.NewReader(in))
	root.SetArgs(args)
	err = execute(s.t.Context(), root, &b, &e)
	return b.String(), e.String(), exitCode(err), err
}

// ok runs one that succeeds.
func (s shell) ok(in string, args ...string) string {
	s.t.Helper()
	out, _, err := s.command(in, args...)
	if err != nil {
		s.t.Fatalf("%v: %v", args, err)
	}
	return out
}
