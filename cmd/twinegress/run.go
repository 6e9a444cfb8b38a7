package main

import (
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"twinegress/cmd/twinegress/internal/app"
)

func runCommand() *cobra.Command {
	from := configFlags{quiet: true}
	var logging app.LogOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Move events until stopped",
		Long: "Consumes the ingest topics as a member of a consumer group and delivers each event to the endpoints that\n" +
			"subscribed to its type. SIGTERM or Ctrl-C stops in order, within shutdown.timeout.",
		Example: "  twinegress run --config twinegress.yaml\n" +
			"  TWINEGRESS_INGEST_BROKERS=kafka:9092 twinegress run --set endpoints.file=/etc/twinegress/endpoints.json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := from.load()
			if err != nil {
				return err
			}
			log, err := app.NewLogger(logging, cmd.ErrOrStderr())
			if err != nil {
				return usageError{err}
			}
			defer func() { _ = log.Sync() }() // a terminal can't be synced
			defer app.RedirectStandardLog(log)()
			if from.file == foundFile {
				log.Info("the configuration file was found, since --config names none", zap.String("file", from.file))
			}
			for _, notice := range cfg.Notices() {
				log.Warn(notice)
			}
			app.LimitMemory(log)
			app.LogConfig(log, cfg, from.file, version)
			defer app.TuneGC()()
			a, err := app.New(cmd.Context(), app.Options{Config: cfg, Version: version, Log: log})
			if err != nil {
				return err
			}
			return a.Run(cmd.Context())
		},
	}
	from.add(cmd)
	logFlags(cmd, &logging, "info")
	return cmd
}
