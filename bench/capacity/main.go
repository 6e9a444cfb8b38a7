// Command capacity computes the resources that rates of events need, from the
// figures in inputs.go: some by arithmetic (plan.go), the effects of queues by
// simulation (sim.go, replica.go). It writes the tables of docs/scaling.md.
//
//	go run ./bench/capacity              prints the tables
//	go run ./bench/capacity -write       puts them into docs/scaling.md
package main

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	page := flag.String("page", "docs/scaling.md", "the page that the tables are for")
	write := flag.Bool("write", false, "write them there")
	flag.Parse()
	if err := run(*page, *write); err != nil {
		fmt.Fprintln(os.Stderr, "capacity:", err)
		os.Exit(1)
	}
}

func run(page string, write bool) error {
	made := tables()
	if !write {
		for _, name := range slices.Sorted(maps.Keys(made)) {
			fmt.Printf("%s\n\n%s\n", name, made[name])
		}
		return nil
	}
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	text, err := fill(string(old), made)
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	return os.WriteFile(page, []byte(text), 0o600)
}

// fill inserts each table between its marks.
func fill(page string, made map[string]string) (string, error) {
	for name, table := range made {
		begin, end := "<!-- capacity: "+name+" -->\n", "<!-- end -->"
		before, rest, ok := strings.Cut(page, begin)
		if !ok {
			return "", fmt.Errorf("there is no line %q", strings.TrimSpace(begin))
		}
		_, after, ok := strings.Cut(rest, end)
		if !ok {
			return "", fmt.Errorf("after %q there is no %q", strings.TrimSpace(begin), end)
		}
		page = before + begin + table + end + after
	}
	return page, nil
}
