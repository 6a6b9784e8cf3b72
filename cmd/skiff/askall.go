package main

import (
	"errors"
	"sync"

	"github.com/skiffdb/skiff"
)

// answer is what one node said, or why it did not.
type answer[T any] struct {
	address string
	value   T
	err     error
}

// askAll asks all nodes at once.
func askAll[T any](nodes []string, ask func(node string) (T, error)) []answer[T] {
	answers := make([]answer[T], len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() {
			value, err := ask(node)
			answers[i] = answer[T]{node, value, err}
		})
	}
	wg.Wait()
	return answers
}

// failures joins the errors of the nodes that did not answer. Each names its node.
func failures[T any](answers []answer[T]) error {
	var errs []error
	for _, a := range answers {
		if a.err != nil {
			errs = append(errs, a.err)
		}
	}
	return errors.Join(errs...)
}

// failedState says in a table what is wrong with a node.
func failedState(err error) string {
	if errors.Is(err, skiff.ErrUnreachable) {
		return "unreachable"
	}
	return outcomeOf(err).kind
}
