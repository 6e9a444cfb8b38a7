// Command twinegress moves the events of a Digital Twins graph from Kafka to
// Azure Event Hubs, Service Bus and Event Grid.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake in the command line or the configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	app.RedirectStandardLog(zap.NewNop()) // of commands without a log of their own
	// A closed output, as with `run 2>&1 | head -1`, ends nothing: term.Output drops
	// what is written there.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := execute(ctx, rootCommand(), os.Stdout, os.Stderr)
	stop()
	if err != nil {
		os.Exit(exitCode(err))
	}
}

// execute runs the command line, and prints its error. All output passes the
// filter for terminals.
func execute(ctx context.Context, root *cobra.Command, out, errOut io.Writer) error {
	errs := term.NewOutput(errOut)
	root.SetOut(term.NewOutput(out))
	root.SetErr(errs)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(errs, "twinegress:", err)
	}
	return err
}

func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[usageError](err); ok || isCobraUsage(err) {
		return exitUsage
	}
	return exitFailed
}

// isCobraUsage reports whether err is a usage error of cobra's own: these have
// no type.
func isCobraUsage(err error) bool {
	for _, start := range []string{"unknown command", "accepts ", "requires "} {
		if strings.HasPrefix(err.Error(), start) {
			return true
		}
	}
	return false
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "twinegress",
		Short:         "Digital Twins events from Kafka to Event Hubs, Service Bus and Event Grid",
		SilenceUsage:  true,
		SilenceErrors: true,
		Example: "  twinegress demo\n" +
			"  twinegress check --config twinegress.yaml\n" +
			"  twinegress run --config twinegress.yaml",
		Args:    noSuchCommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Version: version,
	}
	root.SetVersionTemplate(versionLine(versionInfo()))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w%s (see %s --help)", err, meantFlag(cmd, err), cmd.CommandPath())}
	})
	root.AddCommand(runCommand(), demoCommand(), emulateCommand(), replayCommand(), deadLettersCommand(), endpointsCommand(), tapCommand(), checkCommand(), healthcheckCommand(), statusCommand(), topCommand(), benchCommand(), benchChildCommand(), versionCommand())
	return root
}

func versionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  twinegress version --output json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "json" {
				return term.PrintJSON(cmd.OutOrStdout(), versionInfo())
			}
			_, err := io.WriteString(cmd.OutOrStdout(), versionLine(versionInfo()))
			return err
		},
	}
	outputFlag(cmd, &output, "text")
	return cmd
}

func versionInfo() map[string]string {
	info := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
	if build, ok := debug.ReadBuildInfo(); ok {
		for _, s := range build.Settings {
			if s.Key == "vcs.revision" {
				info["commit"] = s.Value
			}
		}
	}
	return info
}

func versionLine(info map[string]string) string {
	return fmt.Sprintf("twinegress %s (%s, %s)\n", info["version"], info["go"], info["platform"])
}
