#!/usr/bin/env bash
# The whole: the original's three scenarios and four consistency tests, and what a request may ask for by itself.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

# With W=1 and R=1 a read may be sooner than its node's own copy of the write: then it is asked again.
prepare
say "Three nodes"
start_cluster
for at in 1 2 3; do
    for other in $((at % 3 + 1)) $(((at + 1) % 3 + 1)); do
        check_that "node $at sees node $other" within 10 sees "$at" "$other" up
    done
done

say "Scenario 1: write to one node, read from another"
check "PUT through node 1" OK "$(put 1 test:1 hello)"
check_that "GET through node 2 finds it" within 5 reads 2 test:1 hello

say "Scenario 2: batch and scan"
check "BATCH of 100" "Batch Processed" "$(for i in {1..100}; do echo "prod:$i=item-$i"; done | batch 1)"
# In the order of bytes prod:6 to prod:9 lie behind prod:50, and prod:100 before it.
check "SCAN from prod:1 to prod:50 through node 2" 47 "$(rows_of "$(scan 2 prod:1 prod:50 consistency=all)")"
check "SCAN of all" 100 "$(rows_of "$(scan 3 prod: prod:~ consistency=all)")"
check "SCAN with limit=10" 10 "$(rows_of "$(scan 3 prod: prod:~ "consistency=all&limit=10")")"

say "Scenario 3: delete"
check "PUT" OK "$(put 1 temp:1 delete-me)"
check_that "GET" within 5 reads 1 temp:1 delete-me
check "DELETE" Deleted "$(delete 1 temp:1)"
check_that "GET" within 5 reads 1 temp:1 "Not Found"
check_that "no node has it any more" within 5 everywhere temp:1 "Not Found"

say "Test 1: all replicas have the same data"
check "PUT through node 1" OK "$(put 1 consistency:test v1)"
check_that "each node by itself has v1" within 5 everywhere consistency:test v1

say "Test 2: write through node 2, read at once through node 3"
check "PUT with w=2" OK "$(put 2 cross:node data-from-n2 w=2)"
check "GET with r=2" data-from-n2 "$(get 3 cross:node r=2)"

say "Test 3: the later write wins everywhere"
check "PUT v1" OK "$(put 1 versioned:key v1)"
check "PUT v2" OK "$(put 1 versioned:key v2)"
check_that "each node by itself has v2" within 5 everywhere versioned:key v2

say "Consistency of one request"
for level in consistency=one consistency=quorum consistency=all r=1 r=2 r=3; do
    check "GET with $level" v2 "$(get 1 versioned:key "$level")"
done
for level in consistency=one consistency=quorum consistency=all w=1 w=2 w=3; do
    check "PUT with $level" OK "$(put 1 level:key "$level" "$level")"
done
check "more copies than there are: 400" 400 "$(status_of "$(url 1)/get?key=level:key&r=4")"
version=$(version_of -X POST "$(url 1)/put" -d '{"key":"token:key","value":"mine"}')
check_that "PUT tells its version" [ ${#version} = 25 ]
check "GET through node 2 of that version or a later one" mine \
    "$(http -H "X-KV-After: $version" "$(url 2)/get?key=token:key")"
check "GET tells the same version" "$version" "$(version_of "$(url 3)/get?key=token:key&r=3")"
future=ffff${version:4}
check "GET of a version that nobody has: 504" 504 \
    "$(status_of -H "X-KV-After: $future" "$(url 2)/get?key=token:key")"

say "Test 4: quorum behaviour with one node down"
crash_node 3
check "PUT through node 1" OK "$(put 1 quorum:test data)"
check_that "GET through node 1 with two of three nodes" within 5 reads 1 quorum:test data
check_that "node 1 notices" within 5 sees 1 3 down
check "PUT with w=2" OK "$(put 1 quorum:test2 data2 w=2)"
check "PUT with w=3: 503" 503 "$(status_of -X POST "$(url 1)/put?w=3" -d '{"key":"quorum:no","value":"x"}')"
start_node 3
check_that "node 3 is back" await_node 3
check_that "within 10 s it has what it missed" within 10 same_rows quorum: quorum:~ 1 2 3
check "GET through node 3" data "$(get 3 quorum:test)"
check "what was refused is nowhere" "Not Found" "$(get 1 quorum:no r=3)"

say "Stop"
for at in 1 2 3; do check_that "node $at stops with exit code 0" stop_node "$at"; done

finish
