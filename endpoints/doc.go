// Package endpoints is the domain: what an endpoint is, when it is valid, and
// what a store of endpoints promises.
//
// An endpoint enters the process in three steps:
//
//	bytes ── Decode ──▶ Endpoint ── Prepare ──▶ a valid set ── Store ──▶ router
//
// What each step does:
//
//   - [Decode] reads the body of a request, [DecodeSet] the array that an
//     endpoints file holds. Keys and enum values match without regard to case,
//     as the v1 service's clients need; unknown fields are an error.
//   - [Prepare] sets canonical spellings, defaults and stable ids, and returns
//     every violation at once as [ValidationErrors].
//   - A [Store] ([MemoryStore], package filestore, package kafkastore) holds the
//     set and delivers each new one whole. It never delivers an invalid set: a
//     broken change leaves the last good set in force and is logged. Change is
//     the only way to write; any number of writers may call it at once.
//
// The files:
//
//	endpoint.go   Endpoint, its fields and their tags
//	fields.go     what follows from the tags: defaults, equality, Diff, ETag
//	types.go      what each type of endpoint allows
//	decode.go     JSON to Endpoint; encode.go the way back; mask.go secrets in output
//	validate.go   rules about one endpoint; set.go about a set; identity.go about hosts
//	connstring.go connection strings
//	store.go      Store, and what its implementations share; live.go the set in force
//
// # Secrets
//
// An endpoint carries keys. Everything that prints one ([Endpoint.String],
// fmt's verbs, zap, slog, encoding/json) masks them, and no error of this
// package quotes any part of a connection string that could be a key. Whoever
// needs the key reads the field.
//
// Secrets are encrypted where they are stored, by a [SecretFunc] that the store
// passes in: the domain knows no key ring.
//
// Of twinegress the package imports filter only, to validate an expression.
package endpoints
