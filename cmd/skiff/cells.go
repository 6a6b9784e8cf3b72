package main

import (
	"fmt"
	"strconv"
	"time"
)

// What stands in a table for a figure. Below 0, it is not known.

func timeCell(d time.Duration) string {
	if d < 0 {
		return "-"
	}
	unit := time.Microsecond
	for unit < time.Second && d >= 1000*unit {
		unit *= 10
	}
	return d.Round(unit).String()
}

func numberCell(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

func sizeCell(bytes int64) string {
	const units = "KMGTPE"
	switch {
	case bytes < 0:
		return "-"
	case bytes < 1024:
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes)/1024, 0
	for value >= 1000 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}
