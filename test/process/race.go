//go:build race

package process

// Race tells whether this program, and so what Binary builds, has the race detector.
const Race = true
