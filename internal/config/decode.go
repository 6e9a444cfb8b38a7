package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// set parses a raw value, from YAML or a text, into cfg. It replaces
// mapstructure, which accepts what users get wrong: it turns 0123 into the
// password 83, and a number into a duration in nanoseconds.
func set(cfg *Config, k key, raw any) error {
	into := reflect.ValueOf(cfg).Elem().FieldByIndex(k.field).Addr().Interface()
	text, isText := raw.(string)
	switch p := into.(type) {
	case *string:
		if !isText {
			return errNotText
		}
		*p = text
	case *Secret:
		if !isText {
			return errNotText
		}
		*p = Secret(text)
	case *bool:
		b, ok := raw.(bool)
		if !ok {
			var err error
			if b, err = strconv.ParseBool(text); err != nil {
				return wrong(k, raw)
			}
		}
		*p = b
	case *int:
		n, ok := raw.(int)
		if !ok {
			var err error
			if n, err = strconv.Atoi(text); err != nil {
				return wrong(k, raw)
			}
		}
		*p = n
	case *time.Duration:
		if n, ok := raw.(int); ok && n == 0 {
			*p = 0
			return nil
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return wrong(k, raw)
		}
		*p = d
	case *ByteSize:
		if n, ok := raw.(int); ok {
			text = strconv.Itoa(n)
		}
		b, err := ParseByteSize(text)
		if err != nil {
			return wrong(k, raw)
		}
		*p = b
	case *[]string:
		list, err := texts(raw)
		if err != nil {
			return wrong(k, raw)
		}
		*p = list
	case *[]Token:
		list, err := tokens(raw)
		if err != nil {
			return err
		}
		*p = list
	default:
		panic(fmt.Sprintf("BUG: no way to read a %T", into))
	}
	return nil
}

var errNotText = errors.New("must be a string: put it in quotes")

func wrong(k key, raw any) error {
	switch raw.(type) {
	case string:
		return fmt.Errorf("%s, not %q", want(k), raw)
	case int, float64, bool:
		return fmt.Errorf("%s, not %v", want(k), raw)
	}
	return errors.New(want(k))
}

// texts parses a list, or one text with commas, which is what a variable can hold.
func texts(raw any) ([]string, error) {
	switch v := raw.(type) {
	case string:
		out := []string{}
		if strings.TrimSpace(v) == "" {
			return out, nil
		}
		for _, s := range strings.Split(v, ",") {
			out = append(out, strings.TrimSpace(s))
		}
		return out, nil
	case []any:
		out := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, errors.New("not a string")
			}
			out[i] = s
		}
		return out, nil
	}
	return nil, errors.New("not a list")
}

// tokens parses a list of tokens, or the JSON of one. Its errors don't contain
// values: a field by a wrong name may have the token itself.
func tokens(raw any) ([]Token, error) {
	const form = "must be a list of {name: …, sha256: …, role: read or write}"
	if text, ok := raw.(string); ok {
		raw = []any{}
		if strings.TrimSpace(text) != "" {
			var list []any
			if json.Unmarshal([]byte(text), &list) != nil {
				return nil, errors.New(form + "; from the environment or --set: as JSON")
			}
			raw = list
		}
	}
	list, ok := raw.([]any)
	if !ok {
		return nil, errors.New(form)
	}
	out := make([]Token, 0, len(list))
	for i, one := range list {
		fields, ok := one.(map[string]any)
		if !ok {
			return nil, errors.New(form)
		}
		var t Token
		at := map[string]*string{"name": &t.Name, "sha256": &t.SHA256, "role": &t.Role}
		for name, v := range fields {
			p, ok := at[name]
			if !ok {
				return nil, fmt.Errorf("[%d]: unknown key %q; known are name, sha256, role", i, name)
			}
			s, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("[%d].%s must be a string: put it in quotes", i, name)
			}
			*p = s
		}
		out = append(out, t)
	}
	return out, nil
}

// canonical converts values that may be in any case to the one that the rest of
// the program compares with.
func (c *Config) canonical() {
	for _, p := range []*string{&c.Ingest.Start, &c.Ingest.Protocol, &c.Endpoints.Store} {
		*p = strings.ToLower(*p)
	}
	c.Ingest.SASL.Mechanism = strings.ToUpper(c.Ingest.SASL.Mechanism)
	c.API.Tokens = slices.Clone(c.API.Tokens)
	for i := range c.API.Tokens {
		t := &c.API.Tokens[i]
		t.SHA256, t.Role = strings.ToLower(t.SHA256), strings.ToLower(t.Role)
	}
}
