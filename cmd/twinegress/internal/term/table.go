package term

import (
	"io"
	"strings"
	"text/tabwriter"

	"twinegress/internal/untrusted"
)

// Table aligns columns. What is in a cell stays in it: a name with a line break
// makes no row of its own.
type Table struct{ w *tabwriter.Writer }

// NewTable returns a table that Flush writes to w.
func NewTable(w io.Writer) Table { return Table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// Row adds a row. Flush returns what failed.
func (t Table) Row(cells ...string) {
	for i, cell := range cells {
		cells[i] = untrusted.Escape(cell)
	}
	_, _ = io.WriteString(t.w, strings.Join(cells, "\t")+"\n")
}

// Flush writes the table.
func (t Table) Flush() error { return t.w.Flush() }
