package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
	"twinegress/endpoints"
	"twinegress/internal/config"
	"twinegress/pipeline/letters"
)

// deadLettersFlags are those of all commands about dead letters.
type deadLettersFlags struct {
	selectionFlags
	from   configFlags
	output string
	log    app.LogOptions
}

func deadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deadletters",
		Short: "Look at what was set aside: list, show, count",
		Long: "Reads the dead-letter topic from Kafka, with the configuration of run. Nothing is committed, and nothing changes.\n" +
			"`twinegress replay` sends letters again. See docs/replay.md.",
		Example: "  twinegress deadletters count --config twinegress.yaml\n" +
			"  twinegress deadletters list --config twinegress.yaml --endpoint hub --reason rejected --since 2h\n" +
			"  twinegress deadletters show --config twinegress.yaml 3/41",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(deadLettersListCommand(), deadLettersCountCommand(), deadLettersShowCommand())
	return cmd
}

func (d *deadLettersFlags) add(cmd *cobra.Command, forPeople string) {
	d.from.add(cmd)
	logFlags(cmd, &d.log, "warn")
	outputFlag(cmd, &d.output, forPeople)
}

func deadLettersListCommand() *cobra.Command {
	var d deadLettersFlags
	var most int
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List dead letters, the newest first",
		Example: "  twinegress deadletters list --config twinegress.yaml --reason rejected --limit 100",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if most < 1 || most > letters.MaxListed {
				return usageError{fmt.Errorf("--limit %d: must be from 1 to %d", most, letters.MaxListed)}
			}
			reader, selection, names, err := d.open(cmd)
			if err != nil {
				return err
			}
			list, err := reader.List(cmd.Context(), selection, most, letters.Bounds{})
			if err != nil {
				return err
			}
			for i := range list.Letters {
				names.Complete(&list.Letters[i].Endpoint)
			}
			return printLetters(cmd.OutOrStdout(), d.output, list)
		},
	}
	d.selectionFlags.add(cmd)
	cmd.Flags().IntVar(&most, "limit", 20, "how many at most")
	d.add(cmd, "table")
	return cmd
}

func deadLettersCountCommand() *cobra.Command {
	var d deadLettersFlags
	cmd := &cobra.Command{
		Use:     "count",
		Short:   "Count dead letters by reason and endpoint",
		Long:    "Counts dead letters by reason and endpoint. It reads all of the topic, or what --since and --until leave of it.",
		Example: "  twinegress deadletters count --config twinegress.yaml --since 24h",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reader, selection, names, err := d.open(cmd)
			if err != nil {
				return err
			}
			count, err := reader.Count(cmd.Context(), selection, letters.Bounds{})
			if err != nil {
				return err
			}
			for i := range count.Groups {
				names.Complete(&count.Groups[i].Endpoint)
			}
			return printCount(cmd.OutOrStdout(), d.output, count)
		},
	}
	d.selectionFlags.add(cmd)
	d.add(cmd, "table")
	return cmd
}

func deadLettersShowCommand() *cobra.Command {
	var d deadLettersFlags
	var raw bool
	cmd := &cobra.Command{
		Use:   "show PLACE",
		Short: "Show one dead letter with its event",
		Long: "Shows a dead letter with its event. PLACE is where the letter is in the dead-letter topic, PARTITION/OFFSET, or\n" +
			"where its event came from, TOPIC/PARTITION/OFFSET[/INDEX], which is its message id, too: then the topic is searched,\n" +
			"and all letters of that event are listed if there are several.",
		Example: "  twinegress deadletters show --config twinegress.yaml 3/41\n" +
			"  twinegress deadletters show --config twinegress.yaml digitaltwins-events/3/1207 --raw | jq .",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("%d places given, one is needed: PARTITION/OFFSET of a letter, or TOPIC/PARTITION/OFFSET of its event (see %s --help)", len(args), cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			place, err := parsePlace(args[0])
			if err != nil {
				return usageError{fmt.Errorf("%s: %w", args[0], err)}
			}
			if raw && d.output == "json" {
				return usageError{errors.New("--raw and --output json: give one of them")}
			}
			reader, _, names, err := d.open(cmd)
			if err != nil {
				return err
			}
			return d.show(cmd, reader, names, place, raw)
		},
	}
	d.add(cmd, "text")
	cmd.Flags().BoolVar(&raw, "raw", false, "write the event's bytes as they came, and nothing else; not to a terminal")
	return cmd
}

func (d *deadLettersFlags) show(cmd *cobra.Command, reader *letters.Reader, names letters.Names, at place, raw bool) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	if at.topic != "" && at.topic != reader.Topic {
		found, err := reader.Find(ctx, at.topic, at.partition, at.offset, at.index)
		if err != nil {
			return err
		}
		switch len(found) {
		case 0:
			return fmt.Errorf("no dead letter is of the event %s", at)
		case 1:
			at = place{partition: found[0].Partition, offset: found[0].Offset}
		default:
			for i := range found {
				names.Complete(&found[i].Endpoint)
			}
			return printLetters(out, strings.Replace(d.output, "text", "table", 1), letters.List{Letters: found})
		}
	}
	letter, err := reader.Show(ctx, at.partition, at.offset, math.MaxInt, letters.Bounds{})
	if err != nil {
		return err
	}
	names.Complete(&letter.Endpoint)
	switch {
	case raw:
		return writeRaw(out, letter.Raw)
	case d.output == "json":
		return term.PrintJSON(out, letter)
	}
	return printLetter(out, letter)
}

// open returns what the commands read with.
func (d *deadLettersFlags) open(cmd *cobra.Command) (*letters.Reader, letters.Selection, letters.Names, error) {
	none := letters.Selection{}
	cfg, err := d.from.load()
	if err != nil {
		return nil, none, nil, err
	}
	selection, err := d.parse(time.Now())
	if err != nil {
		return nil, none, nil, err
	}
	log, err := app.NewLogger(d.log, cmd.ErrOrStderr())
	if err != nil {
		return nil, none, nil, usageError{err}
	}
	set, err := loadNames(cmd.Context(), cfg, log)
	switch {
	case d.endpoint == "":
	case uuid.Validate(d.endpoint) == nil: // of one that is deleted, too
		selection.Endpoint = strings.ToLower(d.endpoint)
	case err != nil:
		return nil, none, nil, fmt.Errorf("--endpoint %s: the endpoints can't be read, so give an id: %w", d.endpoint, err)
	default:
		if selection.Endpoint, err = findEndpoint(set, d.endpoint); err != nil {
			return nil, none, nil, usageError{fmt.Errorf("--endpoint %s: %w", d.endpoint, err)}
		}
		err = nil
	}
	if err != nil {
		log.Warn("the endpoints can't be read: those of older letters are shown by their ids alone", zap.Error(err))
	}
	reader, err := app.NewLetters(cfg, log)
	return reader, selection, letters.NamesOf(set), err
}

func loadNames(ctx context.Context, cfg config.Config, log *zap.Logger) ([]endpoints.Endpoint, error) {
	store, err := app.OpenStore(cfg, log)
	if err != nil {
		return nil, err
	}
	return store.Load(ctx)
}

// place is where a letter is, or with a topic where its event came from.
type place struct {
	topic     string
	partition int32
	offset    int64
	index     *int32
}

func (p place) String() string {
	s := fmt.Sprintf("%s/%d/%d", p.topic, p.partition, p.offset)
	if p.index != nil {
		s += fmt.Sprintf("/%d", *p.index)
	}
	return s
}

func parsePlace(s string) (p place, err error) {
	parts := strings.Split(s, "/")
	form := errors.New("must be PARTITION/OFFSET of a letter, or TOPIC/PARTITION/OFFSET[/INDEX] of its event")
	if len(parts) < 2 || len(parts) > 4 {
		return p, form
	}
	if len(parts) > 2 {
		if p.topic, parts = parts[0], parts[1:]; p.topic == "" {
			return p, form
		}
	}
	numbers := make([]int64, len(parts))
	for i, part := range parts {
		bits := 32
		if i == 1 {
			bits = 64
		}
		if numbers[i], err = strconv.ParseInt(part, 10, bits); err != nil || numbers[i] < 0 {
			return p, form
		}
	}
	p.partition, p.offset = int32(numbers[0]), numbers[1] //nolint:gosec // 32 bits, as parsed
	if len(numbers) > 2 {
		index := int32(numbers[2]) //nolint:gosec // as above
		p.index = &index
	}
	return p, nil
}

// writeRaw writes bytes past the filter for terminals, and so not to a terminal.
func writeRaw(out io.Writer, b []byte) error {
	filtered, ok := out.(*term.Output)
	if !ok {
		_, err := out.Write(b)
		return err
	}
	raw := filtered.Unfiltered()
	if term.Open(raw) != nil {
		return usageError{errors.New("--raw: standard output is a terminal, which what is in an event could steer: write to a pipe or a file")}
	}
	_, err := raw.Write(b)
	return err
}

// indented returns a value for a terminal: JSON with indentation, anything else as it is.
func indented(value string) string {
	var v json.RawMessage
	if json.Unmarshal([]byte(value), &v) != nil {
		return value
	}
	pretty, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return value
	}
	return string(pretty)
}
