#!/usr/bin/env bash
# From nothing to a checked cluster in six steps: build, start, seed, replication, endpoints, consistency.
#
#   PORT=0 tests/scripts/ingress_script.sh      on free ports instead of 8081, 8082, 8083
PORT=${PORT:-8081}
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

say "1. Build the binary"
prepare
pass "$("$binary" -version)"

say "2. Start 3 nodes"
start_cluster
for at in 1 2 3; do
    check "node $at serves on port ${ports[at]}" 200 "$(status_of "$(url "$at")/health")"
done

say "3. Seed test data through all nodes"
for at in 1 2 3; do
    answers=
    for i in 1 2 3 4 5; do answers+="$(put "$at" "seed:$at:$i" "value-$at-$i") "; done
    check "5 keys through node $at" "OK OK OK OK OK " "$answers"
done

say "4. Verify replication"
# W is 1: a write is answered when one copy is on disk. The other two follow by themselves.
for key in seed:1:5 seed:2:5 seed:3:5; do
    value=value-${key:5:1}-5
    check_that "all nodes have $key, each by itself" within 10 everywhere "$key" "$value"
done

say "5. Test all endpoints"
for at in 1 2 3; do
    other=$((at % 3 + 1))
    check "PUT through node $at" OK "$(put "$at" "user:$at" "Alice Smith" w=2)"
    check "GET through node $other" "Alice Smith" "$(get "$other" "user:$at" r=2)"
    check "BATCH through node $at" "Batch Processed" \
        "$(printf '%s\n' "product:$at:101=Laptop" "product:$at:102=Mouse" "product:$at:103=Keyboard" | batch "$at")"
    check "SCAN through node $at" \
        "{\"product:$at:101\":\"Laptop\",\"product:$at:102\":\"Mouse\",\"product:$at:103\":\"Keyboard\"}" \
        "$(scan "$at" "product:$at:101" "product:$at:199" consistency=all)"
    check "DELETE through node $at" Deleted "$(delete "$at" "user:$at" w=2)"
    check "GET of a deleted key through node $other" "Not Found" "$(get "$other" "user:$at" r=2)"
    check "METRICS of node $at" 200 "$(status_of "$(url "$at")/metrics")"
done

say "6. Validate data consistency"
check_that "all nodes come to the same seeds" within 10 same_rows seed: seed:~ 1 2 3
check_that "all nodes come to the same products" within 10 same_rows product: product:~ 1 2 3
check "15 seeds are there" 15 "$(rows_of "$(scan 1 seed: seed:~ consistency=all)")"
check "9 products are there" 9 "$(rows_of "$(scan 2 product: product:~ consistency=all)")"

finish
