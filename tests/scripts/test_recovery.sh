#!/usr/bin/env bash
# Crash recovery: all three nodes are killed at once under writes, as by a power cut, and started again. Every
# write that was answered must be there, every time.
#
#   ROUNDS=10 tests/scripts/test_recovery.sh
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

rounds=${ROUNDS:-3}
# A writer has at least so many answers when the power goes, and never more than this.
answers_min=${ANSWERS_MIN:-300}
answers_max=20000

# Writes through one node, one key after the other, until it is gone. Leaves a line "OK key" for each answer.
write_until_crash() { # node, round
    local i
    for ((i = 0; i < answers_max; i++)); do
        [ "$i" = 0 ] || echo next
        put_request "$1" "r$2:n$1:$i" "value-of-r$2:n$1:$i" " r$2:n$1:$i"
    done >"$work/writes.$1"
    curl -sN --fail-early -K "$work/writes.$1" >"$work/answers.$1" 2>/dev/null || true
}

has_enough() {
    local at
    for at in 1 2 3; do
        [ "$(grep -c '^OK' "$work/answers.$at")" -ge "$answers_min" ] || return 1
    done
}

# Looks for the keys in $work/asked on all replicas: wrong or missing ones go to $work/lost, those that were not
# answered to $work/asked, to be asked for again.
look() {
    local key first=yes
    while read -r key; do
        [ -n "$first" ] || echo next
        first=
        get_request $((RANDOM % 3 + 1)) "$key" consistency=all " %{http_code} $key"
    done <"$work/asked" >"$work/reads"
    [ -s "$work/reads" ] || return 0
    curl -s -K "$work/reads" >"$work/found" 2>/dev/null || true
    awk '$NF ~ /^r[0-9]+:/ && $(NF - 1) == 200 && $1 != "value-of-" $NF { print $NF }
         $NF ~ /^r[0-9]+:/ && $(NF - 1) == 404 { print $NF }' "$work/found" >>"$work/lost"
    awk '$NF ~ /^r[0-9]+:/ && $(NF - 1) != 200 && $(NF - 1) != 404 { print $NF }' "$work/found" >"$work/asked"
    [ ! -s "$work/asked" ]
}

prepare
start_cluster
: >"$work/all"
for ((round = 1; round <= rounds; round++)); do
    say "Round $round of $rounds"
    writers=()
    for at in 1 2 3; do
        : >"$work/answers.$at"
        write_until_crash "$at" "$round" &
        writers+=("$!")
    done
    check_that "writes are under way through all nodes" within 30 has_enough
    kill -9 "${pids[@]}"
    for at in 1 2 3; do crash_node "$at"; done
    wait "${writers[@]}"
    sed -n 's/^OK //p' "$work"/answers.? >>"$work/all"

    for at in 1 2 3; do start_node "$at"; done
    for at in 1 2 3; do check_that "node $at recovers" await_node "$at"; done
    : >"$work/lost"
    cp "$work/all" "$work/asked"
    check_that "every key can be read" within 20 look
    check "of $(wc -l <"$work/all") answered writes none is lost" "" "$(head -n 5 "$work/lost")"
done

finish
