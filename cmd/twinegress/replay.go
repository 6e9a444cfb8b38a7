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
	"twinegress/internal/untrusted"
	"twinegress/pipeline/replay"
)

// replayOptions are the command line's.
type replayOptions struct {
	endpoint string // id or name; "" is all
	since    string
	output   string
	level    string
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
			"code 1, and the letters that were not delivered are kept for the next time. See docs/replay.md.",
		Example: "  twinegress replay --config twinegress.yaml\n" +
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
	f.StringVar(&o.endpoint, "endpoint", "", "only the letters of this endpoint, by its id or its name")
	f.StringVar(&o.since, "since", "", "only letters set aside since then: an RFC 3339 time, or how long ago, such as 2h")
	levelFlag(cmd, &o.level, "warn")
	outputFlag(cmd, &o.output, "text")
	return cmd
}

// runReplay runs the command with a configuration.
func runReplay(ctx context.Context, cfg config.Config, o replayOptions, out, errOut io.Writer) error {
	since, err := parseSince(o.since, time.Now())
	if err != nil {
		return usageError{fmt.Errorf("--since %s: %w", o.since, err)}
	}
	view := newReplayView(errOut)
	log, err := view.logger(o.level)
	if err != nil {
		return usageError{err}
	}
	store, err := app.OpenStore(cfg, log)
	if err != nil {
		return err
	}
	set, err := store.Load(ctx)
	if err != nil {
		return err
	}
	only, err := findEndpoint(set, o.endpoint)
	if err != nil {
		return usageError{fmt.Errorf("--endpoint %s: %w", o.endpoint, err)}
	}
	r, err := app.NewReplay(ctx, cfg, since, replay.Options{Endpoints: set, Only: only, Progress: view.show, Log: log})
	if err != nil {
		return err
	}
	result, err := r.Run(ctx)
	view.end()
	return explainReplay(errors.Join(err, printReplay(out, o.output, result)), result, o, since)
}

// explainReplay adds to the error of an incomplete replay how to complete it.
func explainReplay(err error, result replay.Result, o replayOptions, since time.Time) error {
	if err == nil {
		return nil
	}
	again := "run the same command again"
	if o.since != "" && o.since != since.Format(time.RFC3339) {
		again += ", with --since " + since.Format(time.RFC3339) + ","
	}
	left := term.Grouped(result.Remaining) + " letters remain"
	if _, failed := errors.AsType[*replay.FailedError](err); failed {
		return fmt.Errorf("%w\n%s, nothing is lost: %s once it works; --endpoint replays another endpoint's letters meanwhile", err, left, again)
	}
	if errors.Is(err, replay.ErrInterrupted) {
		return fmt.Errorf("%w: %s; to go on, %s", err, left, again)
	}
	return err
}

// parseSince parses a time, or a duration before now. The result is truncated to
// the second, so that a user can repeat it; "" is the zero time.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		ago, err := time.ParseDuration(s)
		if err != nil {
			return time.Time{}, errors.New("must be a time such as 2026-01-31T08:00:00Z, or how long ago, such as 90m or 2h")
		}
		if ago <= 0 {
			return time.Time{}, errors.New("must be more than 0: it is how long ago")
		}
		at = now.Add(-ago)
	}
	if at.After(now) {
		return time.Time{}, errors.New("is in the future")
	}
	if at.Unix() < 0 {
		return time.Time{}, errors.New("is before 1970, and so is no time of Kafka's")
	}
	return at.UTC().Truncate(time.Second), nil
}

func printReplay(w io.Writer, output string, r replay.Result) error {
	if output == "json" {
		return term.PrintJSON(w, r)
	}
	if r.Letters == 0 && r.Complete {
		_, err := fmt.Fprintln(w, "nothing to replay: there are no letters that this selection has not replayed before")
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s letters: %s delivered, %s refused again, %s skipped", term.Grouped(r.Letters),
		term.Grouped(r.Delivered), term.Grouped(r.RefusedAgain), term.Grouped(r.Skipped.Total()))
	if r.Undelivered > 0 {
		fmt.Fprintf(&b, ", %s not delivered", term.Grouped(r.Undelivered))
	}
	b.WriteByte('\n')
	for _, e := range r.Endpoints {
		fmt.Fprintf(&b, "  %s %s: %s delivered", e.Type, untrusted.Text(e.Path), term.Grouped(e.Delivered))
		if e.RefusedAgain > 0 {
			fmt.Fprintf(&b, ", %s refused again, the last: %s", term.Grouped(e.RefusedAgain), untrusted.Text(e.LastRefusal))
		}
		b.WriteByte('\n')
	}
	for _, s := range []struct {
		n    int64
		what string
	}{
		{r.Skipped.NoEndpoint, "have no endpoint: input that could not be decoded or classified"},
		{r.Skipped.OtherEndpoint, "are other endpoints'"},
		{r.Skipped.UnknownEndpoint, "are of endpoints that are not configured any more"},
		{r.Skipped.Cut, "were cut when they were stored: not all of the event is there"},
		{r.Skipped.Unrouted, "are not for their endpoint any more, by its event types or its filter"},
		{r.Skipped.Unreadable, "are no dead letters of twinegress"},
	} {
		if s.n > 0 {
			fmt.Fprintf(&b, "  skipped: %s %s\n", term.Grouped(s.n), s.what)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
