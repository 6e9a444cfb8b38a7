// Package endpoints is the domain: what a user configures, whether it is
// valid, and where it is kept.
//
// The way of an endpoint into the process:
//
//	bytes ── Decode ──▶ Endpoint ── Prepare ──▶ a valid set ── Store ──▶ whoever routes
//
// What each step does:
//
//   - [Decode] reads one POST body, [DecodeSet] the array of them that an
//     endpoints file holds. Keys and enum values match without regard to case,
//     as the v1 service's clients need; unknown fields are an error.
//   - [Prepare] gives every endpoint its canonical spelling, its defaults and
//     its stable id, and reports every violation at once as [ValidationErrors].
//   - A [Store] ([FileStore], [MemoryStore], package kafkastore) holds the set and delivers each
//     new one whole. It never delivers an invalid set: a broken change leaves
//     the last good set in force and is reported. Its Change is the one way
//     to write, for as many writers at once as there are.
//
// # Secrets
//
// An endpoint carries keys. Everything that prints one ([Endpoint.String],
// fmt's verbs, zap, slog, encoding/json) masks them, and no error of this
// package quotes any part of a connection string that could be a key. Whoever
// needs the key reads the field.
//
// The package imports nothing else of twinegress.
package endpoints
