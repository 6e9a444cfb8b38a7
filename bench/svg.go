package bench

import (
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
)

// The chart's measures, in pixels.
const (
	chartWidth  = 1000
	chartMargin = 24
	rowHeight   = 46
	labelWidth  = 150
	panelWidth  = 250 // of a panel's scale
	panelGap    = 165 // right of it, for the figures
)

const chartStyle = `
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #24292f }
.title { font-size: 18px; font-weight: 600 }
.head { font-weight: 600 }
.small { font-size: 11px; fill: #57606a }
.rule { stroke: #d0d7de }
.one { stroke: #57606a; stroke-dasharray: 3 3 }
.range { stroke: #0969da; stroke-width: 6; stroke-linecap: round; opacity: .25 }
.pair { fill: #0969da; opacity: .55 }
.median { stroke: #0a3069; stroke-width: 3 }
.bar { fill: #0969da; opacity: .75 }
.line { fill: none; stroke: #0969da; stroke-width: 1.5 }
`

// WriteSVG draws the report: the ratios of scenarios with two sides, pair by pair,
// and the latency or memory of the others.
func (r *Report) WriteSVG(w io.Writer) {
	var pairs, alone []*Result
	for _, result := range r.Results {
		if len(result.Sides) == 2 {
			pairs = append(pairs, result)
		} else {
			alone = append(alone, result)
		}
	}
	height := 90 + chartMargin
	if len(pairs) > 0 {
		height += 70 + rowHeight*len(pairs)
	}
	if len(alone) > 0 {
		height += 50 + 2*rowHeight*len(alone)
	}
	c := &canvas{w: w}
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img"><title>twinegress bench</title><style>%s</style>`+"\n",
		chartWidth, height, chartWidth, height, chartStyle)
	fmt.Fprintf(w, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", chartWidth, height)
	h := &r.Header
	c.text(chartMargin, 36, "start", "title", "twinegress bench")
	c.text(chartMargin, 58, "start", "small", fmt.Sprintf("%s, %s %s, %s, %d cores, %s", h.Version, h.Go, h.Platform, h.CPU, h.Cores, h.Time.Format("2006-01-02")))
	c.text(chartMargin, 74, "start", "small", h.where()+"; GOMAXPROCS "+strconv.Itoa(h.MaxProcs))
	y := 90.0
	if len(pairs) > 0 {
		y = c.pairs(y, pairs)
	}
	if len(alone) > 0 {
		c.alone(y, alone)
	}
	fmt.Fprintln(w, "</svg>")
}

// canvas writes SVG elements.
type canvas struct{ w io.Writer }

func (c *canvas) text(x, y float64, anchor, class, s string) {
	fmt.Fprintf(c.w, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`+"\n", x, y, anchor, class, html.EscapeString(s))
}

func (c *canvas) line(x1, y1, x2, y2 float64, class string) {
	fmt.Fprintf(c.w, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" class="%s"/>`+"\n", x1, y1, x2, y2, class)
}

// pairs draws two panels of ratios, one for the CPU and one for the rate.
func (c *canvas) pairs(y float64, results []*Result) float64 {
	const left = chartMargin + labelWidth
	const right = left + panelWidth + panelGap
	cpu := newScale(left, results, func(r *Result) Values { return r.CPURatio })
	rate := newScale(right, results, func(r *Result) Values { return r.RateRatio })
	y += 20
	c.text(left, y, "start", "head", "CPU per event: ratio, less is better")
	c.text(right, y, "start", "head", "Events a second: ratio, more is better")
	y += 18
	bottom := y + 10 + rowHeight*float64(len(results))
	for _, s := range []scale{cpu, rate} {
		s.axis(c, y, bottom)
	}
	y += 10
	for _, r := range results {
		a, b := r.Sides[0], r.Sides[1]
		c.text(chartMargin, y+18, "start", "head", r.Scenario)
		c.text(chartMargin, y+33, "start", "small", a.Label+" / "+b.Label)
		cpu.dots(c, y+20, r.CPURatio)
		rate.dots(c, y+20, r.RateRatio)
		c.text(left+panelWidth+12, y+17, "start", "", fmt.Sprintf("%.2f×", r.CPURatio.Median))
		c.text(left+panelWidth+12, y+32, "start", "small", fmt.Sprintf("%.2f µs / %.2f µs", a.CPU.Median, b.CPU.Median))
		c.text(right+panelWidth+12, y+17, "start", "", fmt.Sprintf("%.2f×", r.RateRatio.Median))
		c.text(right+panelWidth+12, y+32, "start", "small", thousands(a.Rate.Median)+" / "+thousands(b.Rate.Median))
		y += rowHeight
		c.line(chartMargin, y-2, chartWidth-chartMargin, y-2, "rule")
	}
	return y + 30
}

// scale maps ratios to a panel; 1 is always on it.
type scale struct{ x, low, high float64 }

func newScale(x float64, results []*Result, of func(*Result) Values) scale {
	s := scale{x, 0.9, 1.1}
	for _, r := range results {
		if v := of(r); v.has() {
			s.low, s.high = min(s.low, v.Min), max(s.high, v.Max)
		}
	}
	s.low, s.high = math.Floor(s.low*10)/10, math.Ceil(s.high*10)/10
	return s
}

func (s scale) at(v float64) float64 { return s.x + (v-s.low)/(s.high-s.low)*panelWidth }

func (s scale) axis(c *canvas, top, bottom float64) {
	for _, v := range []float64{s.low, 1, s.high} {
		class := "rule"
		if v == 1 {
			class = "one"
		}
		c.line(s.at(v), top+4, s.at(v), bottom, class)
		c.text(s.at(v), top, "middle", "small", strconv.FormatFloat(v, 'f', -1, 64))
	}
}

func (s scale) dots(c *canvas, y float64, v Values) {
	if !v.has() {
		return
	}
	c.line(s.at(v.Min), y, s.at(v.Max), y, "range")
	for _, each := range v.Each {
		fmt.Fprintf(c.w, `<circle cx="%.1f" cy="%.1f" r="3.5" class="pair"/>`+"\n", s.at(each), y)
	}
	c.line(s.at(v.Median), y-9, s.at(v.Median), y+9, "median")
}

// alone draws latencies as bars, and the memory of a long run as a line.
func (c *canvas) alone(y float64, results []*Result) {
	const left = chartMargin + labelWidth
	const width = 2*panelWidth + panelGap
	longest := 0.001
	for _, r := range results {
		longest = max(longest, r.Sides[0].P999.Median)
	}
	c.text(left, y, "start", "head", "Latency from the append to the outcome; memory of a long run")
	y += 14
	for _, r := range results {
		s := r.Sides[0]
		c.text(chartMargin, y+18, "start", "head", r.Scenario)
		if r.Rate > 0 {
			c.text(chartMargin, y+33, "start", "small", thousands(r.Rate)+" events a second")
		}
		if s.P99.has() {
			for i, q := range []struct {
				name string
				of   Values
			}{{"p50", s.P50}, {"p99", s.P99}, {"p99.9", s.P999}} {
				at := y + 8 + 20*float64(i)
				end := q.of.Median / longest * width
				fmt.Fprintf(c.w, `<rect x="%d" y="%.1f" width="%.1f" height="13" class="bar"/>`+"\n", left, at, end)
				c.text(left+end+8, at+11, "start", "small", fmt.Sprintf("%s %.1f ms", q.name, q.of.Median*1e3))
			}
		} else if len(s.RSS) > 1 {
			c.memory(left, y+8, width, 50, s.RSS)
		}
		y += 2 * rowHeight
		c.line(chartMargin, y-10, chartWidth-chartMargin, y-10, "rule")
	}
}

// memory draws a series of sizes from 0 up.
func (c *canvas) memory(x, y, width, height float64, sizes []int64) {
	highest := int64(1)
	for _, n := range sizes {
		highest = max(highest, n)
	}
	fmt.Fprint(c.w, `<polyline class="line" points="`)
	for i, n := range sizes {
		fmt.Fprintf(c.w, "%.1f,%.1f ", x+width*float64(i)/float64(len(sizes)-1), y+height*(1-float64(n)/float64(highest)))
	}
	fmt.Fprintln(c.w, `"/>`)
	c.line(x, y+height, x+width, y+height, "rule")
	c.text(x+width+8, y+10, "start", "small", fmt.Sprintf("at most %d MiB", highest>>20))
	c.text(x+width+8, y+height, "start", "small", fmt.Sprintf("after %d s", len(sizes)-1))
}

// thousands formats a number with commas.
func thousands(v float64) string {
	digits := strconv.FormatInt(int64(math.Round(v)), 10)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
