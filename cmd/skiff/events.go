package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/skiffdb/skiff"
)

// eventBuffer is how many events wait for a slow reader before further ones are
// missed.
const eventBuffer = 1024

// printEvents prints what a node tells as JSON lines, until it has stopped.
func printEvents(e *env, events *skiff.Subscription) {
	var missed uint64
	for event := range events.C {
		if err := printEvent(e.stdout, event); err != nil {
			fmt.Fprintf(e.stderr, "skiff: events: %v\n", err)
			events.Close()
			return
		}
		if now := events.Missed(); now > missed {
			fmt.Fprintf(e.stderr, "skiff: events: %d missed\n", now-missed)
			missed = now
		}
	}
}

func printEvent(w io.Writer, event skiff.Event) error {
	text, err := json.Marshal(event)
	if err != nil {
		return err
	}
	fields := map[string]any{}
	if err := json.Unmarshal(text, &fields); err != nil {
		return err
	}
	fields["Event"] = event.Kind()
	switch event := event.(type) { // errors have no JSON of their own
	case skiff.Warning:
		fields["Err"] = event.Err.Error()
	case skiff.PeerFailed:
		fields["Err"] = event.Err.Error()
	}
	return json.NewEncoder(w).Encode(fields)
}
