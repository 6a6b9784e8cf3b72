package skiff

import (
	"errors"

	"github.com/skiffdb/skiff/internal/storage"
)

// checkContinuity refuses a state and a log that do not fit together: that would
// be a hole in the history, whatever it came from.
func checkContinuity(store *storage.Store, log *raftLog) error {
	applied, err := store.Applied()
	if err != nil {
		return err
	}
	marker, err := store.Marker()
	if err != nil {
		return err
	}
	if applied.Index < marker.Applied {
		return corrupt("the state is at log index %d, behind its own snapshot marker at %d", applied.Index, marker.Applied)
	}
	if applied.Index > marker.Index {
		// The entries in between came out of the log.
		gone, err := log.conflicts(applied)
		if err != nil {
			return err
		}
		if gone {
			return corrupt("the state is at log index %d of term %d, and the log does not have that entry", applied.Index, applied.Term)
		}
	}
	return log.settle(marker.Position, false)
}

// stateError adds the kind that callers check. The file is named by storage.
func stateError(err error) error {
	if err != nil && errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, ErrCorrupt) {
		return corrupt("%w", err)
	}
	return err
}
