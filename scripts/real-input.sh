#!/usr/bin/env bash
# Loads a Debian package index into a cluster of three processes through a
# follower, kills the leader with SIGKILL in the middle, restarts it, and then
# finds every stanza byte for byte through each node, and equal states. Then it loads
# all of it again and again, without an error, while each node in turn is restarted
# with SIGTERM.
#
#   scripts/real-input.sh [STANZAS]     (default: all of them)
#
# The index is the machine's own (after "apt-get update"), or SKIFF_INDEX names
# one; where there is none, stanzas are made up.
set -euo pipefail
cd "$(dirname "$0")/.."

stanzas=${1:-0}
work=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  [ ${#pids[@]} = 0 ] || wait "${pids[@]}" 2>/dev/null || true
  rm -rf "$work"
}
trap cleanup EXIT
fail() {
  echo "real-input: $*" >&2
  tail -n 5 "$work"/n*.log >&2 || true
  exit 1
}

index() {
  local list
  list=${SKIFF_INDEX:-$(ls -S /var/lib/apt/lists/*_Packages* 2>/dev/null | head -n 1 || true)}
  if [ -z "$list" ]; then
    echo "no package index here, making stanzas up" >&2
    awk 'BEGIN { for (i = 0; i < 5000; i++) printf "Package: made-up-%d\nVersion: 1.%d\nDescription: stanza %d\n it has a second line\n\n", i, i, i }'
  elif [ -x /usr/lib/apt/apt-helper ]; then
    echo "index: $list" >&2
    /usr/lib/apt/apt-helper cat-file "$list"
  else
    echo "index: $list" >&2
    cat "$list"
  fi
}

go build -o "$work/skiff" ./cmd/skiff
go build -o "$work/debindex" ./examples/debindex
index >"$work/all"
awk -v n="$stanzas" 'BEGIN { RS = ""; ORS = "\n\n" } n == 0 || NR <= n' "$work/all" >"$work/Packages"
"$work/debindex" convert <"$work/Packages" >"$work/packages.jsonl"
total=$(wc -l <"$work/packages.jsonl")
echo "$total stanzas, $(wc -c <"$work/packages.jsonl") bytes as JSONL"

base=$((20000 + RANDOM % 10000))
addrs=()
for i in 0 1 2; do addrs+=("/ip4/127.0.0.1/tcp/$((base + i))"); done
serve() { # number
  local peers=() j
  for j in 0 1 2; do [ "$j" = "$1" ] || peers+=(--peer "${addrs[$j]}"); done
  "$work/skiff" serve "${addrs[$1]}" --dir "$work/n$1" "${peers[@]}" >>"$work/n$1.log" 2>&1 &
  pids[$1]=$!
}
ready() { # number, how many times it has been started
  # Through cat: to /dev/null, grep ends at the first match, whatever -m says.
  timeout 60 grep -m "$2" '^ready' <(tail -n +1 -f "$work/n$1.log" --pid=$$) | cat >/dev/null || fail "node $1 did not get ready"
}
leader() { # the leader's number, asked of the nodes named
  local a
  a=$("$work/skiff" leader --node "$1" --timeout 30s -o raw) || fail "no leader"
  for i in 0 1 2; do [ "${addrs[$i]}" != "$a" ] || echo "$i"; done
}
all=$(IFS=,; echo "${addrs[*]}")

for i in 0 1 2; do serve "$i"; done
for i in 0 1 2; do ready "$i" 1; done
l=$(leader "$all")
f=$(((l + 1) % 3))
echo "leader is node $l, loading through node $f"

# In many small batches, so that there is a middle to kill the leader in.
start=$(date +%s%N)
"$work/skiff" load "$work/packages.jsonl" --node "${addrs[$f]}" --batch "$((total / 2000 + 1))" --parallel 1 --resume "$work/resume" --timeout 60s 2>"$work/load.log" &
load=$!
# Wait until a third is in the follower's state.
while kill -0 "$load" 2>/dev/null; do
  n=$("$work/skiff" scan --node "${addrs[$f]}" --consistency stale --keys-only -o raw 2>/dev/null | wc -l)
  [ "$n" -lt $((total / 3)) ] || break
done
kill -0 "$load" 2>/dev/null || fail "the load was over before the leader could be killed: $(cat "$work/load.log")"
kill -9 "${pids[$l]}"
wait "${pids[$l]}" 2>/dev/null || true
echo "killed the leader after $n of $total"
wait "$load" || fail "load failed: $(cat "$work/load.log")"
echo "loaded in $((($(date +%s%N) - start) / 1000000)) ms: $(tail -n 1 "$work/load.log")"
serve "$l"
ready "$l" 2
"$work/debindex" verify "${addrs[@]}" <"$work/Packages" || fail "not all is there"
"$work/skiff" checksum --node "$all" --timeout 30s || fail "the states differ"

touch "$work/restarting"
(
  rounds=0
  while [ -e "$work/restarting" ]; do
    "$work/skiff" load "$work/packages.jsonl" --node "$all" --batch 20 --timeout 30s 2>"$work/load.log" || exit 1
    rounds=$((rounds + 1))
  done
  echo "loaded $rounds times during the restarts"
) &
load=$!
for i in 0 1 2; do
  kill "${pids[$i]}"
  wait "${pids[$i]}" || fail "node $i did not stop cleanly"
  serve "$i"
  ready "$i" "$(($(grep -c '^ready' "$work/n$i.log") + 1))"
done
rm "$work/restarting"
wait "$load" || fail "a load failed during the restarts: $(cat "$work/load.log")"
"$work/debindex" verify "${addrs[@]}" <"$work/Packages" || fail "not all is there"
"$work/skiff" checksum --node "$all" --timeout 30s || fail "the states differ"

for i in 0 1 2; do
  kill "${pids[$i]}"
  wait "${pids[$i]}" || fail "node $i did not stop cleanly"
done
pids=()
echo "real-input: ok"
