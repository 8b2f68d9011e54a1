#!/usr/bin/env bash
# Read performance: every connection reads the same keys, each in an order of its own, through one of the nodes.
#
#   CONNECTIONS=32 REQUESTS=5000 KEYS=100000 tests/scripts/test_read_intensity.sh     requests of each connection
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

connections=${CONNECTIONS:-12}
requests=${REQUESTS:-2000}
keys=${KEYS:-5000}

prepare
start_cluster
say "Seed $keys keys"
for ((first = 0; first < keys; first += 500)); do
    answer=$(for ((i = first; i < first + 500 && i < keys; i++)); do echo "read:$i=value-$i"; done | batch 1)
    [ "$answer" = "Batch Processed" ] || break
done
check "the seed is written" "Batch Processed" "$answer"
check_that "all nodes have it" within 20 same_rows read: read:~ 1 2 3
check "all of it" "$keys" "$(rows_of "$(scan 1 read: read:~)")"

for quorum in 1 2 3; do
    say "R=$quorum: $connections connections, $requests reads each"
    for ((c = 0; c < connections; c++)); do
        for ((i = 0; i < requests; i++)); do
            [ "$i" = 0 ] || echo next
            get_request $((c % 3 + 1)) "read:$(((RANDOM * 32768 + RANDOM) % keys))" "r=$quorum" "$measured"
            echo 'output="/dev/null"'
        done >"$work/load.$c"
    done
    run_load "reads with r=$quorum"
done
echo "$caveat"

finish
