package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/config"
	"twinegress/pipeline/letters"
	"twinegress/pipeline/replay"
)

// replayOptions are the command line's.
type replayOptions struct {
	selectionFlags
	again  string
	dryRun bool
	output string
	log    app.LogOptions
}

func replayCommand() *cobra.Command {
	var o replayOptions
	var from configFlags
	cmd := &cobra.Command{
		Use:   "replay",
		Short: "Send dead letters to their endpoints again",
		Long: "Reads the dead-letter topic up to its end as of now, and sends each letter that has an endpoint to it again, with\n" +
			"the message id that the event had. Ends by itself.\n\n" +
			"It can be interrupted: the same command goes on where it was. While an endpoint still fails it stops with exit\n" +
			"code 1, and the letters that were not delivered are kept for the next time. Letters that an earlier replay is done\n" +
			"with are skipped, and counted; --again sends them once more. --dry-run only counts. See docs/replay.md.",
		Example: "  twinegress replay --config twinegress.yaml --dry-run\n" +
			"  twinegress replay --config twinegress.yaml --endpoint 568fd394-380b-46fa-925a-ebb96f658cce --since 2h",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := from.load()
			if err != nil {
				return err
			}
			return runReplay(cmd.Context(), cfg, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	from.add(cmd)
	f := cmd.Flags()
	o.add(cmd)
	f.BoolVar(&o.dryRun, "dry-run", false, "count what would be sent, by endpoint and reason, and send nothing")
	f.StringVar(&o.again, "again", "", "send once more what was replayed before; to go on with such a replay, the time that it prints")
	f.Lookup("again").NoOptDefVal = againNow
	logFlags(cmd, &o.log, "warn")
	outputFlag(cmd, &o.output, "text")
	return cmd
}

// runReplay runs the command with a configuration.
func runReplay(ctx context.Context, cfg config.Config, o replayOptions, out, errOut io.Writer) error {
	now := time.Now()
	selection, err := o.parse(now)
	if err != nil {
		return err
	}
	again, err := parseAgain(o.again, now)
	if err != nil {
		return err
	}
	view := newReplayView(errOut)
	log, err := view.logger(o.log)
	if err != nil {
		return usageError{err}
	}
	defer func() { _ = log.Sync() }() // a terminal can't be synced
	store, err := app.OpenStore(cfg, log)
	if err != nil {
		return err
	}
	set, err := store.Load(ctx)
	if err != nil {
		return err
	}
	if selection.Endpoint, err = findEndpoint(set, o.endpoint); err != nil {
		return usageError{fmt.Errorf("--endpoint %s: %w", o.endpoint, err)}
	}
	options := replay.Options{Endpoints: set, Selection: selection, Progress: view.show, Log: log}
	if o.dryRun {
		preview, err := app.PreviewReplay(ctx, cfg, again, options)
		if err != nil {
			return err
		}
		return printPreview(out, o.output, preview, set)
	}
	r, err := app.NewReplay(ctx, cfg, again, options)
	if err != nil {
		return err
	}
	result, err := r.Run(ctx)
	view.end()
	return explainReplay(errors.Join(err, printReplay(out, o.output, result, set)), result, o, selection, again)
}

// explainReplay adds to the error of an incomplete replay how to complete it.
func explainReplay(err error, result replay.Result, o replayOptions, s letters.Selection, again time.Time) error {
	if err == nil {
		return nil
	}
	goOn := []string{"run the same command again"}
	for _, flag := range []struct {
		name, given string
		at          time.Time
	}{{"--since ", o.since, s.Since}, {"--until ", o.until, s.Until}, {"--again=", o.again, again}} {
		if at := flag.at.Format(time.RFC3339); flag.given != "" && flag.given != at {
			goOn = append(goOn, "with "+flag.name+at)
		}
	}
	command := strings.Join(goOn, ", ")
	left := term.Grouped(result.Remaining) + " letters remain"
	if _, failed := errors.AsType[*replay.FailedError](err); failed {
		return fmt.Errorf("%w\n%s, nothing is lost: %s once it works; --endpoint replays another endpoint's letters meanwhile", err, left, command)
	}
	if errors.Is(err, replay.ErrInterrupted) {
		return fmt.Errorf("%w: %s; to go on, %s", err, left, command)
	}
	return err
}
