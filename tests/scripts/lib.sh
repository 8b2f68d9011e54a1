# shellcheck shell=bash
# What the scripts here share: three nodes on loopback, requests, checks, load. Sourced, never run.
#
# From the environment:
#   KVSTORE_BIN  the program; absent: cargo build --release
#   PORT         of node 1, the others follow; 0: any that are free
#   DIR          where node1, node2 and node3 keep their data; absent: a new folder, removed at the end
#   CLUSTER_...  any setting of a node, such as CLUSTER_WRITE_QUORUM=2
#
# However a script ends, the nodes it has started end with it, by process id, and no others.
set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
port=${PORT:-0}
work=${DIR:-}
binary=${KVSTORE_BIN:-}
ports=() # by number of the node, 1 to 3; pids too, where it runs
pids=()
temporary=
passed=0
failed=0

say() { printf '\n== %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# ---- checks

pass() {
    passed=$((passed + 1))
    printf 'PASS  %s\n' "$*"
}

fail() {
    failed=$((failed + 1))
    printf 'FAIL  %s\n' "$*"
}

check() { # what, expected, got
    if [ "$2" = "$3" ]; then pass "$1"; else fail "$1: expected '$2', got '$3'"; fi
}

check_that() { # what, command: that it succeeds
    local what=$1
    shift
    if "$@"; then pass "$what"; else fail "$what"; fi
}

within() { # seconds, command: tries until it succeeds; fails when it has not by then
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

now_ms() { printf '%s' $((${EPOCHREALTIME/./} / 1000)); }

# The last line, and the exit code with it.
finish() {
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    [ "$failed" = 0 ] && [ "$passed" != 0 ]
}

# ---- nodes

# The program, and a place for data. Every script begins with it.
prepare() {
    command -v curl >/dev/null || die "curl is not installed"
    if [ -z "$binary" ]; then
        (cd "$root" && cargo build --release)
        binary=$root/target/release/kvstore
    fi
    [ -x "$binary" ] || die "$binary is no program"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    if [ -z "$work" ]; then
        # Not /tmp: where that is a RAM disk, nodes do not start.
        mkdir -p "${TMPDIR:-$root/target/tmp}"
        work=$(mktemp -d "${TMPDIR:-$root/target/tmp}/kvstore-script.XXXXXX")
        temporary=yes
    fi
    mkdir -p "$work"
}

clean_up() {
    local status=$? at
    trap - EXIT
    for at in "${!pids[@]}"; do crash_node "$at"; done
    if [ "$status" != 0 ]; then
        for at in "${!ports[@]}"; do
            printf '\nlast lines of node %d:\n' "$at"
            tail -n 15 "$work/node$at.out" || true
        done
    fi
    [ -z "$temporary" ] || rm -rf "$work"
    exit "$status"
}

is_free() { ! (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

choose_ports() {
    local first=$port
    # Below the ports that the kernel gives to outgoing connections.
    [ "$first" != 0 ] || first=$((20000 + RANDOM % 12000))
    ports=([1]="$first" [2]="$((first + 1))" [3]="$((first + 2))")
}

url() { printf 'http://localhost:%s' "${ports[$1]}"; }

peers_of() {
    local at list=
    for at in 1 2 3; do
        [ "$at" = "$1" ] || list+="${list:+,}localhost:${ports[at]}"
    done
    printf '%s' "$list"
}

# Starts a node and does not wait for it.
start_node() {
    : >"$work/node$1.out" # here, not by the node: what an earlier one printed must be gone
    env -u KVSTORE_BIN -u KVSTORE_ADVERTISE "$binary" -env-file /dev/null -port "${ports[$1]}" \
        -peers "$(peers_of "$1")" -dir "$work/node$1" >>"$work/node$1.out" 2>&1 </dev/null &
    pids[$1]=$!
}

is_running() { grep -q "Node running on port ${ports[$1]}" "$work/node$1.out"; }
has_ended() { ! kill -0 "${pids[$1]}" 2>/dev/null; }
is_running_or_ended() { is_running "$1" || has_ended "$1"; }

await_node() { within 60 is_running_or_ended "$1" && is_running "$1"; }

# Ends a node as a power cut would.
crash_node() {
    local pid=${pids[$1]:-}
    [ -n "$pid" ] || return 0
    unset "pids[$1]"
    kill -9 "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

# Ends a node as an operator would.
stop_node() {
    local pid=${pids[$1]} status=0
    kill -TERM "$pid" 2>/dev/null || true
    within 20 has_ended "$1" || return 1
    unset "pids[$1]"
    wait "$pid" || status=$?
    return "$status"
}

state_at() { # at node, of node: up, suspect, down or mismatch
    local text
    text=$(http "$(url "$1")/health") || return 0
    text=${text#*\"localhost:"${ports[$2]}"\",\"state\":\"}
    printf '%s' "${text%%\"*}"
}

sees() { [ "$(state_at "$1" "$2")" = "$3" ]; } # at node, of node, state

# Whether a write through each node reaches all three: then every link is there. The few keys hit every core.
is_whole() {
    local at key
    for at in 1 2 3; do
        for key in link:1 link:2 link:3 link:4 link:5 link:6; do
            [ "$(put "$at" "$key" x w=3 2>/dev/null)" = OK ] || return 1
        done
    done
}

# Starts all three nodes, and waits until they serve.
start_nodes() {
    local at down
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        choose_ports
        down=
        for at in 1 2 3; do is_free "${ports[at]}" || down=$at; done
        if [ -n "$down" ] && [ "$port" = 0 ]; then continue; fi
        for at in 1 2 3; do start_node "$at"; done
        for at in 1 2 3; do await_node "$at" || down=$at; done
        [ -n "$down" ] || break
        if [ "$port" != 0 ] || ! grep -q "is in use" "$work/node$down.out"; then
            die "node $down does not start"
        fi
        for at in 1 2 3; do crash_node "$at"; done
    done
    [ -z "$down" ] || die "no three ports in a row are free"
}

# The same, and waits until they have found each other.
start_cluster() {
    start_nodes
    within 15 is_whole || die "the nodes do not find each other"
}

# ---- requests

http() { curl -sS --noproxy '*' --max-time 10 "$@"; }

put() { # node, key, value, query if any
    http -X POST "$(url "$1")/put${4:+?$4}" -H "Content-Type: application/json" \
        -d "{\"key\":\"$2\",\"value\":\"$3\"}"
}

get() { # node, key, query if any
    http "$(url "$1")/get?key=$2${3:+&$3}"
}

delete() { # node, key, query if any
    http -X POST "$(url "$1")/delete?key=$2${3:+&$3}"
}

batch() { # node, lines of key=value on standard input
    local key value items=
    while IFS='=' read -r key value; do
        items+="${items:+,}{\"key\":\"$key\",\"value\":\"$value\"}"
    done
    http -X POST "$(url "$1")/batch" -d "{\"items\":[$items]}"
}

scan() { # node, start, end, query if any
    http "$(url "$1")/scan?start=$2&end=$3${4:+&$4}"
}

rows_of() { # a scan's answer without escapes: how many rows it has
    printf '%d' $(($(printf '%s' "$1" | tr -cd '"' | wc -c) / 4))
}

status_of() { http -o /dev/null -w '%{http_code}' "$@"; }

version_of() { # curl's arguments: the version of what was written or read
    http -o /dev/null -D - "$@" | tr -d '\r' | sed -n 's/^X-KV-Version: //p'
}

metric() { # node, name
    local text
    text=$(http "$(url "$1")/metrics")
    text=${text#*\""$2"\":}
    printf '%s' "${text%%[,\}]*}"
}

reads() { [ "$(get "$1" "$2" "${4:-}")" = "$3" ]; } # node, key, value, query if any

# Whether each node by itself, asking no other, has this value, or with "Not Found" none.
everywhere() { # key, value
    local at
    for at in 1 2 3; do
        reads "$at" "$1" "$2" r=1 || return 1
    done
}

# Whether the nodes by themselves have the same rows in a range. A scan repairs nothing.
same_rows() { # start, end, nodes
    local first at
    first=$(scan "$3" "$1" "$2" r=1)
    for at in "${@:4}"; do
        [ "$(scan "$at" "$1" "$2" r=1)" = "$first" ] || return 1
    done
}

# ---- load: many requests by few processes of curl, each over one connection

# One request of a curl configuration; `output` and `write-out` are the caller's.
put_request() { # node, key, value, write-out
    printf 'url="http://localhost:%s/put"\ndata="{\\"key\\":\\"%s\\",\\"value\\":\\"%s\\"}"\n' "${ports[$1]}" "$2" "$3"
    printf 'write-out="%s\\n"\nnoproxy="*"\nmax-time=10\n' "$4"
}

get_request() { # node, key, query or nothing, write-out
    printf 'url="http://localhost:%s/get?key=%s%s"\n' "${ports[$1]}" "$2" "${3:+&$3}"
    printf 'write-out="%s\\n"\nnoproxy="*"\nmax-time=10\n' "$4"
}

# What is told of a request whose answer is not looked at.
# shellcheck disable=SC2034 # the scripts use it
measured='%{http_code} %{time_total}'

cpu_ms() { # CPU time of all nodes so far
    local at sum=0 fields
    for at in "${!pids[@]}"; do
        read -r -a fields <"/proc/${pids[at]}/stat"
        sum=$((sum + fields[13] + fields[14]))
    done
    printf '%d' $((sum * 1000 / $(getconf CLK_TCK)))
}

# Runs the configurations $work/load.* at once. Says what was measured, and checks that all were answered 200.
run_load() { # what the requests are
    local what=$1 file busy began cpu took connections=0 total right curls=()
    cpu=$(cpu_ms)
    began=$(now_ms)
    for file in "$work"/load.*; do
        curl -sS -K "$file" >"$work/times.${file##*.}" 2>"$work/errors.${file##*.}" &
        curls+=("$!")
        connections=$((connections + 1))
    done
    # An exit code is that of the last request only; the status of each is looked at below.
    wait "${curls[@]}" || true
    took=$(($(now_ms) - began))
    busy=$(($(cpu_ms) - cpu))
    [ "$took" -gt 0 ] || took=1
    cat "$work"/times.* | sort -k 2 -n >"$work/sorted"
    total=$(wc -l <"$work/sorted")
    right=$(grep -c '^200 ' "$work/sorted" || true)
    awk -v total="$total" -v what="$what" -v ms="$took" -v busy="$busy" -v by="$connections" '
        NR == int(total / 2) + 1 { middle = $2 }
        NR == int(total * 0.99) + 1 { slow = $2 }
        END {
            printf "%d %s over %d connections in %.2f s: %d per second, p50 %.2f ms, p99 %.2f ms\n", \
                total, what, by, ms / 1000, total * 1000 / ms, middle * 1000, slow * 1000
            printf "CPU of the three nodes together: %d µs per request\n", busy * 1000 / total
        }' "$work/sorted"
    check "all $total $what are answered 200" "$total" "$right"
    rm -f "$work"/load.* "$work"/times.* "$work"/errors.* "$work/sorted"
}

# What the figures are worth, below each of them.
# shellcheck disable=SC2034 # the scripts use it
caveat="(the clients are curl, one request at a time each, on the same machine: a lower bound of what nodes can do)"
