#!/usr/bin/env bash
# Runs each fuzz target of all packages for a while, which is 2m unless said otherwise:
#
#   scripts/fuzz.sh [DURATION [FLAG OF GO TEST...]]
#   scripts/fuzz.sh 10m -parallel 1
#
# It ends at the first failure. The input is then in testdata/fuzz, and is run by each
# "go test" from there on.
set -euo pipefail
cd "$(dirname "$0")/.."

duration=${1:-2m}
flags=("${@:2}")

go test -list '^Fuzz' ./... | awk '/^Fuzz/ { f[n++] = $1 } /^ok/ { for (i = 0; i < n; i++) print $2, f[i]; n = 0 }' |
  while read -r package target; do
    # Go takes a minute for making an input shorter that is only new.
    if out=$(go test -run '^$' -fuzz "^$target\$" -fuzztime "$duration" -fuzzminimizetime 2s "${flags[@]}" "$package" 2>&1 </dev/null); then
      echo "$package $target: $(grep '^fuzz: elapsed' <<<"$out" | tail -n 1)"
    elif grep -q 'context deadline exceeded' <<<"$out" && ! grep -q 'Failing input' <<<"$out"; then
      # Go takes the end of the time for a failure now and then (golang/go issue 48591).
      echo "$package $target: $(grep '^fuzz: elapsed' <<<"$out" | tail -n 1), nothing found"
    else
      echo "$out"
      exit 1
    fi
  done
