package main

import (
	"fmt"
	"image/color"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
)

// colours are of the systems, alike in all plots.
var colours = map[string]color.Color{
	"skiff":      color.RGBA{0x1b, 0x6e, 0xb5, 0xff},
	"skiff-bolt": color.RGBA{0x8f, 0xbc, 0xe6, 0xff},
	"etcd":       color.RGBA{0xd6, 0x5f, 0x1a, 0xff},
	"raft-bolt":  color.RGBA{0xc4, 0xc4, 0xc4, 0xff},
	"raft-wal":   color.RGBA{0x8a, 0x8a, 0x8a, 0xff},
	"goleveldb":  color.RGBA{0x5b, 0x9a, 0x5b, 0xff},
}

// plotRows draws a bar chart of each row: operations per second by clients and system.
func plotRows(dir string, cells []cell) error {
	for _, r := range rows {
		of := slices.DeleteFunc(slices.Clone(cells), func(c cell) bool { return c.Row != r.name })
		if len(of) == 0 {
			continue
		}
		if err := plotRow(filepath.Join(dir, fileName(r.name)), r.name, of); err != nil {
			return fmt.Errorf("plot %s: %w", r.name, err)
		}
	}
	return nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

func fileName(row string) string {
	return notInNames.ReplaceAllString(strings.ToLower(row), "-") + ".svg"
}

func plotRow(file, title string, cells []cell) error {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, "clients", "operations per second"
	p.Y.Min, p.Legend.Top, p.Legend.Left = 0, true, true
	clients := distinct(cells, func(c cell) int { return c.Clients })
	slices.Sort(clients)
	names := distinct(cells, func(c cell) string { return c.System })
	const width = 10
	for i, name := range names {
		values := make(plotter.Values, len(clients))
		for _, c := range cells {
			if c.System == name {
				values[slices.Index(clients, c.Clients)] = c.OpsPerSecond
			}
		}
		bars, err := plotter.NewBarChart(values, vg.Points(width))
		if err != nil {
			return err
		}
		bars.Color, bars.LineStyle.Width = colours[name], 0
		bars.Offset = vg.Points(width * (float64(i) - float64(len(names)-1)/2))
		p.Add(bars)
		p.Legend.Add(name, bars)
	}
	labels := make([]string, len(clients))
	for i, n := range clients {
		labels[i] = fmt.Sprint(n)
	}
	p.NominalX(labels...)
	return p.Save(5*vg.Inch, 3*vg.Inch, file)
}

// distinct are the values of a property, in the order in which they come.
func distinct[T comparable](cells []cell, of func(cell) T) (all []T) {
	for _, c := range cells {
		if v := of(c); !slices.Contains(all, v) {
			all = append(all, v)
		}
	}
	return all
}
