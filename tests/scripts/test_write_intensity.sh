#!/usr/bin/env bash
# Write performance: every connection writes keys of its own through one of the nodes.
#
#   CONNECTIONS=32 REQUESTS=5000 tests/scripts/test_write_intensity.sh     requests of each connection
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

connections=${CONNECTIONS:-12}
requests=${REQUESTS:-2000}
value=$(printf 'x%.0s' {1..100})

prepare
start_cluster
for quorum in 1 2 3; do
    say "W=$quorum: $connections connections, $requests writes each, values of 100 bytes"
    for ((c = 0; c < connections; c++)); do
        for ((i = 0; i < requests; i++)); do
            [ "$i" = 0 ] || echo next
            put_request $((c % 3 + 1)) "w$quorum:$c:$i" "$value" "$measured"
            echo 'output="/dev/null"'
        done | sed "s|/put\"|/put?w=$quorum\"|" >"$work/load.$c"
    done
    run_load "writes with w=$quorum"
done
echo "$caveat"

say "What was written is there"
total=$((3 * connections * requests))
last=$((requests - 1))
for quorum in 1 2 3; do
    check "the last key of the first connection, w=$quorum" "$value" "$(get 2 "w$quorum:0:$last" consistency=all)"
done
check_that "all nodes come to the same $total rows" within 20 same_rows w1: w3:~ 1 2 3
check "a scan finds all $total" "$total" "$(rows_of "$(scan 1 w1: w3:~ consistency=all)")"

finish
