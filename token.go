package skiff

import (
	"context"
	"crypto/rand"
	"errors"
)

// Token names one write of one writer.
type Token string

// Append adds value under a new key.
func (db *DB) Append(ctx context.Context, prefix, value []byte) (key []byte, err error) {
	key = append(append([]byte{}, prefix...), rand.Text()...)
	_, err = db.PutIfAbsent(ctx, key, value)
	return key, err
}

// Resolve tells what became of a write.
func (db *DB) Resolve(ctx context.Context, token Token) (version uint64, err error) {
	return 0, errors.New("to come")
}

// NewToken returns a token for a write that is still to be made.
func (db *DB) NewToken(ctx context.Context) (Token, error) { return "", errors.New("to come") }

// Once makes a write happen at most once under token.
func Once(token Token) Condition { return Condition{} }
