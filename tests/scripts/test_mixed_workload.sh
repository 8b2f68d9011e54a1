#!/usr/bin/env bash
# Mixed load: 70 % reads and 30 % writes of the same keys, through all nodes, with the default W and R.
#
#   CONNECTIONS=32 REQUESTS=5000 KEYS=100000 tests/scripts/test_mixed_workload.sh     requests of each connection
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

connections=${CONNECTIONS:-12}
requests=${REQUESTS:-2000}
keys=${KEYS:-1000}

prepare
start_cluster
say "Seed $keys keys"
for ((first = 0; first < keys; first += 500)); do
    answer=$(for ((i = first; i < first + 500 && i < keys; i++)); do echo "mix:$i=seed"; done | batch 1)
    [ "$answer" = "Batch Processed" ] || break
done
check "the seed is written" "Batch Processed" "$answer"
check_that "all nodes have it" within 20 same_rows mix: mix:~ 1 2 3

say "$connections connections, $requests requests each, 7 reads to 3 writes"
for ((c = 0; c < connections; c++)); do
    for ((i = 0; i < requests; i++)); do
        [ "$i" = 0 ] || echo next
        key=mix:$(((RANDOM * 32768 + RANDOM) % keys))
        if ((i % 10 < 7)); then
            get_request $((c % 3 + 1)) "$key" "" "$measured"
        else
            put_request $((c % 3 + 1)) "$key" "$c-$i" "$measured"
        fi
        echo 'output="/dev/null"'
    done >"$work/load.$c"
done
run_load "reads and writes"
echo "$caveat"

say "Writes of one key from all sides leave one value"
check_that "all nodes come to the same rows" within 20 same_rows mix: mix:~ 1 2 3
check "no key is lost, none has appeared" "$keys" "$(rows_of "$(scan 2 mix: mix:~ consistency=all)")"

finish
