package config

import (
	_ "embed"
	"slices"
)

//go:embed twinegress.yaml
var example []byte

// Example returns a commented YAML file with every key and its default. Loading
// it changes nothing: api.listen, which must not be set without api.tokens, is
// commented out.
func Example() []byte { return slices.Clone(example) }
