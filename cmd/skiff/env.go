package main

import (
	"context"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/skiffdb/skiff"
)

// env is what commands get from outside, so that a test or the demo can stand in
// for the process.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	open           opener
}

// opener opens the database at the given nodes; release gives it back.
type opener func(ctx context.Context, nodes []string, o skiff.DialOptions) (db *skiff.DB, release func(), err error)

func processEnv() *env {
	return &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, open: dial}
}

func dial(ctx context.Context, nodes []string, o skiff.DialOptions) (*skiff.DB, func(), error) {
	db, err := skiff.Dial(ctx, nodes, o)
	if err != nil {
		return nil, nil, err
	}
	return db, func() { _ = db.Close() }, nil
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
