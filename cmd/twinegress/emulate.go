package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"twinegress/cmd/twinegress/internal/app"
	"twinegress/cmd/twinegress/internal/term"
	"twinegress/internal/emulator"
)

// emulation is the options of `emulate`. An address of "" is off.
type emulation struct {
	services emulator.Config
	grid     emulator.GridTopic
	kafka    string // address
	caFile   string
}

const (
	emulatedGridTopic   = "eventgrid"
	emulatedIngestTopic = "digitaltwins-events"
	emulatedMaxBytes    = 8 << 20 // of a record: large enough for events that the services refuse as too large
)

func emulateCommand() *cobra.Command {
	e := emulation{
		services: emulator.Config{AutoCreate: true, TrackIDs: true},
		grid:     emulator.GridTopic{Name: emulatedGridTopic, Keys: new(emulator.KeyPair)},
	}
	var output string
	var logging app.LogOptions
	cmd := &cobra.Command{
		Use:   "emulate",
		Short: "Serve emulated services: AMQP (Event Hubs, Service Bus), Event Grid, Kafka",
		Long: "Serves stand-ins for the services that `run` talks to, for trying things out on one machine. Any hub or topic\n" +
			"that a client names exists. With none of --amqp, --eventgrid and --kafka, all three listen on their default\n" +
			"addresses; with some of them, only those. Prints how to connect, and stops on SIGTERM or Ctrl-C.",
		Example: "  twinegress emulate\n" +
			"  twinegress emulate --eventgrid 127.0.0.1:8443 --eventgrid-ca-file ca.pem --stats 127.0.0.1:8082",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if e.services.AMQPListen == "" && e.grid.Listen == "" && e.kafka == "" {
				e.services.AMQPListen, e.grid.Listen, e.kafka = "127.0.0.1:5672", "127.0.0.1:8443", "127.0.0.1:9092"
			}
			if e.services.Partitions < 1 || e.services.Record < 0 {
				return usageError{fmt.Errorf("--partitions must be 1 or more, and --record 0 or more (see %s --help)", cmd.CommandPath())}
			}
			log, err := app.NewLogger(logging, cmd.ErrOrStderr())
			if err != nil {
				return usageError{err}
			}
			defer func() { _ = log.Sync() }() // a terminal can't be synced
			e.services.Logger = log
			return e.run(cmd.Context(), cmd.OutOrStdout(), output)
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.services.AMQPListen, "amqp", "", "address of the Event Hubs and Service Bus namespace (default 127.0.0.1:5672)")
	f.StringVar(&e.grid.Listen, "eventgrid", "", "address of the Event Grid topic, HTTPS (default 127.0.0.1:8443)")
	f.StringVar(&e.kafka, "kafka", "", "address of the Kafka broker, on 127.0.0.1 (default 127.0.0.1:9092)")
	f.StringVar(&e.services.StatsListen, "stats", "127.0.0.1:8082", "address of the counts, the messages and the faults; \"\" is off")
	f.StringVar(&e.caFile, "eventgrid-ca-file", "", "write the root certificate here, for send.caFile")
	f.StringSliceVar(&e.services.CertHosts, "eventgrid-hosts", nil, "further names in the Event Grid certificate")
	f.StringVar(&e.grid.Keys.Primary, "eventgrid-key", "", "the Event Grid topic's primary key (default random)")
	f.StringVar(&e.services.Keys.Primary, "key", "", "the namespace's primary key, base64 (default random)")
	f.IntVar(&e.services.Partitions, "partitions", 4, "partitions of a hub, and of the ingest topic")
	f.IntVar(&e.services.Record, "record", 1000, "messages that are kept to look at, per hub or topic")
	logFlags(cmd, &logging, "warn")
	outputFlag(cmd, &output, "text")
	return cmd
}

// addresses is what a user needs to write endpoints for the emulation.
type addresses struct {
	Kafka                     string `json:"kafka,omitempty"`
	IngestTopic               string `json:"ingestTopic,omitempty"`
	ConnectionString          string `json:"connectionString,omitempty"`
	SecondaryConnectionString string `json:"secondaryConnectionString,omitempty"`
	EventGridPath             string `json:"eventGridPath,omitempty"`
	EventGridKey              string `json:"eventGridKey,omitempty"`
	EventGridSecondaryKey     string `json:"eventGridSecondaryKey,omitempty"`
	CAFile                    string `json:"caFile,omitempty"`
	Stats                     string `json:"stats,omitempty"`
}

func (e *emulation) run(ctx context.Context, out io.Writer, output string) (err error) {
	var c addresses
	if e.grid.Listen != "" {
		e.services.EventGridTopics = []emulator.GridTopic{e.grid}
	}
	services, err := emulator.Start(ctx, e.services)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, services.Close()) }()
	if e.services.AMQPListen != "" {
		c.ConnectionString = services.ConnectionString(emulator.Primary)
		c.SecondaryConnectionString = services.ConnectionString(emulator.Secondary)
	}
	if e.grid.Listen != "" {
		c.EventGridPath = services.EventGridHost(emulatedGridTopic)
		c.EventGridKey = services.EventGridKey(emulatedGridTopic, emulator.Primary)
		c.EventGridSecondaryKey = services.EventGridKey(emulatedGridTopic, emulator.Secondary)
	}
	if e.caFile != "" {
		// The file is world-readable: it is a certificate for another user's process.
		if err := os.WriteFile(e.caFile, services.CAPEM(), 0o644); err != nil { //nolint:gosec // see above
			return fmt.Errorf("--eventgrid-ca-file: %w", err)
		}
		c.CAFile = e.caFile
	}
	if e.services.StatsListen != "" {
		c.Stats = "http://" + services.StatsAddr()
	}
	if e.kafka != "" {
		kafka, err := emulator.StartKafka(emulator.KafkaConfig{
			Listen: e.kafka, Topics: map[string]int{emulatedIngestTopic: e.services.Partitions}, MaxMessageBytes: emulatedMaxBytes,
		})
		if err != nil {
			return err
		}
		defer kafka.Close()
		c.Kafka, c.IngestTopic = kafka.Addrs()[0], emulatedIngestTopic
	}
	if err := c.print(out, output); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (c addresses) print(out io.Writer, output string) error {
	if output == "json" {
		return term.PrintJSON(out, c)
	}
	for _, line := range []struct{ name, value string }{
		{"Kafka", c.Kafka},
		{"  ingest topic", c.IngestTopic},
		{"Event Hubs, Service Bus", c.ConnectionString},
		{"  secondary", c.SecondaryConnectionString},
		{"Event Grid path", c.EventGridPath},
		{"  key", c.EventGridKey},
		{"  secondary key", c.EventGridSecondaryKey},
		{"Root certificate", c.CAFile},
		{"Counts", c.Stats},
	} {
		if line.value == "" {
			continue
		}
		if _, err := fmt.Fprintf(out, "%-24s %s\n", line.name, line.value); err != nil {
			return err
		}
	}
	return nil
}
