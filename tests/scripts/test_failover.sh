#!/usr/bin/env bash
# A node fails and returns: the others go on, nothing is half done, and what it missed reaches it within 10 s.
#
#   KEYS=5000 tests/scripts/test_failover.sh
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

keys=${KEYS:-200}

# Writes keys first to last through nodes 1 and 2 by turns; says how many were answered OK.
write_keys() { # first, last, value, query
    local i
    for ((i = $1; i <= $2; i++)); do
        [ "$i" = "$1" ] || echo next
        put_request $((i % 2 + 1)) "key:$i" "$3-$i" "" | sed "s|/put\"|/put?$4\"|"
    done >"$work/writes"
    curl -sS -K "$work/writes" | grep -c '^OK$' || true
}

# Reads them through nodes 1 and 2; says how many have this value.
read_keys() { # first, last, value, query
    local i
    for ((i = $1; i <= $2; i++)); do
        [ "$i" = "$1" ] || echo next
        get_request $((i % 2 + 1)) "key:$i" "$4" ""
    done >"$work/reads"
    curl -sS -K "$work/reads" | grep -c "^$3-[0-9]*\$" || true
}

half=$((keys / 2))

prepare
say "Before"
start_cluster
check "$keys writes with w=3" "$keys" "$(write_keys 1 "$keys" old w=3)"
check "a key that will be deleted" OK "$(put 1 key:deleted x w=3)"

say "Node 3 fails"
crash_node 3
check "$half writes with w=1 go on at once" "$half" "$(write_keys 1 "$half" new w=1)"
check_that "node 1 sees node 3 down" within 5 sees 1 3 down
check_that "node 2 sees node 3 down" within 5 sees 2 3 down
check "$keys more with w=2" "$keys" "$(write_keys $((keys + 1)) $((2 * keys)) new w=2)"
check "a deletion" Deleted "$(delete 2 key:deleted w=2)"
for level in r=1 r=2; do
    check "what was written before is read with $level" "$((keys - half))" \
        "$(read_keys $((half + 1)) "$keys" old "$level")"
    check "what was overwritten, too" "$half" "$(read_keys 1 "$half" new "$level")"
    check "what is new, too" "$keys" "$(read_keys $((keys + 1)) $((2 * keys)) new "$level")"
done
check_that "hints wait for node 3" [ "$(($(metric 1 hints_kept) + $(metric 2 hints_kept)))" -ge "$((half + keys + 1))" ]

say "What cannot be done is refused at once, and nothing of it is done"
began=$(now_ms)
answer=$(http -X POST "$(url 1)/put?w=3" -H "Accept: application/json" -d '{"key":"key:refused","value":"x"}' -w '%{http_code}')
took=$(($(now_ms) - began))
check "PUT with w=3: 503" 503 "${answer: -3}"
check_that "it says not_applied" grep -q '"outcome":"not_applied"' <<<"$answer"
check_that "it took $took ms, less than 500" [ "$took" -lt 500 ]
check "GET with r=3: 503" 503 "$(status_of "$(url 1)/get?key=key:1&r=3")"
check "the refused key is on neither node" "Not Found" "$(get 1 key:refused r=2)"

say "Node 3 returns"
start_node 3
check_that "it serves" await_node 3
began=$(now_ms)
check_that "it has what the others have, within 10 s" within 10 same_rows key: key:~ 1 3
printf 'that took %d ms\n' $(($(now_ms) - began))
check "it knows the deletion by itself" "Not Found" "$(get 3 key:deleted r=1)"
no_hints() { [ "$(metric 1 hint_bytes)$(metric 2 hint_bytes)" = 00 ]; }
check_that "no hints are left" within 10 no_hints
check "none was dropped" 00 "$(metric 1 hints_dropped)$(metric 2 hints_dropped)"
check "the refused key is nowhere" "Not Found" "$(get 3 key:refused r=3)"
check_that "node 1 sees node 3 up" within 5 sees 1 3 up
check "PUT with w=3" OK "$(put 1 key:refused y w=3)"

finish
