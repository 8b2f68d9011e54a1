#!/usr/bin/env bash
# This server beside others: one run, the servers taking turns at the same work, all on the same core, the load
# generator on another. Prints a table in Markdown. A server that is not installed is left out, by name.
#
#   benches/compare.sh [-rounds 3] [-seconds 3] [-only get64,put64] [-bin target/release/kvstore]
#
# Other machines, other figures: compare within one table. CPU time is utime + stime of the server's processes
# (/proc/PID/stat) divided by the requests the load generator counted. Each figure is the median of the rounds.
# nginx answers 200 with 100 bytes and stores nothing: it is what a request costs without a database.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=3 seconds=3 only= kvstore=
while [ $# -gt 0 ]; do
    case $1 in
        -rounds) rounds=$2 ;;
        -seconds) seconds=$2 ;;
        -only) only=,$2, ;;
        -bin) kvstore=$(realpath "$2") ;;
        *) echo "usage: benches/compare.sh [-rounds 3] [-seconds 3] [-only get64,put64] [-bin path]" >&2; exit 2 ;;
    esac
    shift 2
done
[ "$(nproc)" -ge 2 ] || { echo "error: needs a core for the server and one for the client" >&2; exit 1; }

if [ -z "$kvstore" ]; then
    cargo build --release --quiet
    kvstore=$PWD/target/release/kvstore
fi
# On the disk of the sources, not in /tmp: that may be memory, and durable writes are what is measured.
dir=$(mktemp -d "$PWD/target/compare.XXXXXX")
results=$dir/results.tsv
started=()
end() {
    [ ${#started[@]} = 0 ] || kill "${started[@]}" 2>/dev/null || true
    wait
    rm -rf "$dir"
}
trap end EXIT
trap 'exit 130' INT TERM

say() { printf '%s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null || { say "skipped: $1 is not installed"; return 1; }; }
on_core_0() { taskset -c 0 "$@" >"$dir/log.$((++log))" 2>&1 & started+=($!); last=$!; }
log=0

until_open() { # port
    local tries=0
    until (: >"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
        [ $((++tries)) -lt 200 ] || { say "error: nothing listens on port $1"; tail -n 3 "$dir"/log.* >&2; exit 1; }
        sleep 0.05
    done
}

# --- The servers. Ports of their own, so that nothing that runs already is disturbed. ---

start_kvstore() {
    on_core_0 "$kvstore" -port 28081 -dir "$dir/kvstore" -cores 1
    kv=$last
    until_open 28081
    value=$(printf 'v%.0s' $(seq 100))
    curl -sf -X POST localhost:28081/put -d "{\"key\":\"hot\",\"value\":\"$value\"}" >/dev/null
    "$kvstore" bench -quiet -load -n 1 -workload get localhost:28081 >/dev/null
}

start_nginx() {
    have nginx || return 0
    cat >"$dir/nginx.conf" <<CONF
daemon off; worker_processes 1; pid $dir/nginx.pid; error_log $dir/nginx.err;
events { worker_connections 2048; }
http { access_log off; keepalive_requests 1000000000; client_body_temp_path $dir/nginx.tmp;
  server { listen 127.0.0.1:28080 backlog=4096; location / { return 200 "$value"; } } }
CONF
    on_core_0 nginx -c "$dir/nginx.conf"
    until_open 28080
    nginx=$(pgrep -P "$last")
}

start_redis() {
    have redis-server && have redis-benchmark || return 0
    mkdir "$dir/redis"
    on_core_0 redis-server --port 28379 --bind 127.0.0.1 --save '' --appendonly yes --appendfsync always --dir "$dir/redis"
    redis=$last
    until_open 28379
    # The one key that redis-benchmark reads unless it is told to read at random.
    redis-benchmark -p 28379 -n 1 -c 1 -d 100 -t set >/dev/null 2>&1
}

start_etcd() {
    have etcd || return 0
    on_core_0 etcd --data-dir "$dir/etcd" --log-level error \
        --listen-client-urls http://127.0.0.1:28479 --advertise-client-urls http://127.0.0.1:28479 \
        --listen-peer-urls http://127.0.0.1:28480
    etcd=$last
    until_open 28479
}

kvstore_trio() {
    local peers=127.0.0.1:28181,127.0.0.1:28182,127.0.0.1:28183
    trio=()
    for at in 1 2 3; do
        "$kvstore" -port 2818$at -peers $peers -dir "$dir/trio$at" -cores 1 >"$dir/log.trio$at" 2>&1 &
        started+=($!) trio+=($!)
    done
    until_open 28181; until_open 28182; until_open 28183
}

etcd_trio() {
    have etcd || return 0
    local members=a1=http://127.0.0.1:28391,a2=http://127.0.0.1:28392,a3=http://127.0.0.1:28393
    etcds=()
    for at in 1 2 3; do
        etcd --name a$at --data-dir "$dir/etcd$at" --log-level error \
            --listen-client-urls http://127.0.0.1:2838$at --advertise-client-urls http://127.0.0.1:2838$at \
            --listen-peer-urls http://127.0.0.1:2839$at --initial-advertise-peer-urls http://127.0.0.1:2839$at \
            --initial-cluster $members --initial-cluster-state new >"$dir/log.etcd$at" 2>&1 &
        started+=($!) etcds+=($!)
    done
    until_open 28381; until_open 28382; until_open 28383
    # The leader answers without a hop: the best case for it.
    leader=28381
    for at in 1 2 3; do
        status=$(curl -sf -X POST http://127.0.0.1:2838$at/v3/maintenance/status -d '{}' || true)
        own=$(grep -o '"member_id":"[0-9]*"' <<<"$status" | grep -o '[0-9]*') || continue
        if grep -q "\"leader\":\"$own\"" <<<"$status"; then leader=2838$at; fi
    done
}

stop() { # pids
    kill "$@" 2>/dev/null || true
    wait "$@" 2>/dev/null || true
}

# --- One measurement. ---

ticks() { # pids -> utime + stime of all of them, in ticks
    local sum=0 pid fields
    for pid in "$@"; do
        fields=$(sed 's/.*) //' "/proc/$pid/stat")
        set -- $fields
        sum=$((sum + ${12} + ${13}))
    done
    echo "$sum"
}

wanted() { [ -z "$only" ] || [[ $only = *,$1,* ]]; }

# A line of results: row, server, requests, requests/s, p50, p99, p99.9 in µs, CPU µs per request.
keep() { # row server ticks requests rate p50 p99 p999
    local hz
    hz=$(getconf CLK_TCK)
    awk -v OFS='\t' -v row="$1" -v server="$2" -v ticks="$3" -v n="$4" -v rate="$5" -v p50="$6" -v p99="$7" -v p999="$8" \
        -v hz="$hz" 'BEGIN { print row, server, n, rate, p50, p99, p999, ticks * 1e6 / hz / n }' >>"$results"
}

# The load generator of this repository, at any HTTP server. `pin` empties for the three-node rows.
pin="taskset -c 1"
http() { # row server "pids" [bench arguments]
    local row=$1 server=$2 pids=$3 before after
    shift 3
    before=$(ticks $pids)
    $pin "$kvstore" bench -quiet -cpus 1 -z "${seconds}s" -max-errors 100 -o json "$@" >"$dir/one.json"
    after=$(ticks $pids)
    keep "$row" "$server" $((after - before)) $(awk -v name="$row $server" '
        /"totals":/ { inside = 1 }
        inside && /"(requests|requests_per_s|failed|p50_ns|p99_ns|p999_ns)":/ {
            gsub(/[",:]/, ""); if (!($1 in seen)) seen[$1] = $2
        }
        /"response":/ { inside = 0 }
        END {
            if (seen["failed"] > 0) print "warning: " name ": " seen["failed"] " requests failed" >"/dev/stderr"
            print seen["requests"], seen["requests_per_s"], seen["p50_ns"] / 1000, seen["p99_ns"] / 1000, seen["p999_ns"] / 1000
        }' "$dir/one.json")
}

# redis speaks its own protocol: its own load generator. It tells no p99.9.
redis() { # row connections pipeline command requests
    local before after random=
    if [ "$4" = set ]; then random="-r 100000"; fi
    before=$(ticks "$redis")
    $pin redis-benchmark -p 28379 -c "$2" -P "$3" -n "$5" -d 100 $random -t "$4" --csv >"$dir/redis.csv" 2>/dev/null
    after=$(ticks "$redis")
    keep "$1" redis $((after - before)) "$5" $(awk -F'","|"' -v name="${4^^}" '$2 == name {
        print $3, $6 * 1000, $8 * 1000, "-" }' "$dir/redis.csv")
}

base64_of() { printf '%s' "$1" | base64 -w0; }

# Requests for redis: about as many as the others get in their seconds.
few=$((20000 * seconds)) many=$((60000 * seconds))

gets() { # row connections pipeline
    wanted "$1" || return 0
    local at="-c $2 -pipeline $3"
    http "$1" kvstore "$kv" $at "http://127.0.0.1:28081/get?key=hot"
    [ -z "${nginx-}" ] || http "$1" nginx "$nginx" $at http://127.0.0.1:28080/
    [ -z "${redis-}" ] || redis "$1" "$2" "$3" get "$many"
}

puts() { # row connections
    wanted "$1" || return 0
    local body="{\"key\":\"bench:{{rand 100000}}\",\"value\":\"$value\"}"
    http "$1" kvstore "$kv" -c "$2" -m POST -d "$body" http://127.0.0.1:28081/put
    [ -z "${nginx-}" ] || http "$1" nginx "$nginx" -c "$2" -m POST -d "$body" http://127.0.0.1:28080/
    [ -z "${redis-}" ] || redis "$1" "$2" 1 set $([ "$2" = 1 ] && echo $((500 * seconds)) || echo "$few")
    [ -z "${etcd-}" ] || http "$1" etcd "$etcd" -c "$2" -m POST $etcd_keys -d "$etcd_put" http://127.0.0.1:28479/v3/kv/put
}

own() { # row [bench arguments]
    wanted "$1" || return 0
    local row=$1
    shift
    http "$row" kvstore "$kv" "$@" 127.0.0.1:28081
}

hey() { # row connections
    wanted "$1" && command -v hey >/dev/null || return 0
    local server url pids before after
    for server in kvstore ${nginx:+nginx}; do
        case $server in
            kvstore) url="http://127.0.0.1:28081/get?key=hot" pids=$kv ;;
            nginx) url=http://127.0.0.1:28080/ pids=$nginx ;;
        esac
        before=$(ticks $pids)
        $pin hey -z "${seconds}s" -c "$2" -cpus 1 "$url" >"$dir/hey.txt"
        after=$(ticks $pids)
        keep "$1" $server $((after - before)) $(awk '
            /Requests\/sec/ { rate = $2 }
            /50% in/ { p50 = $3 } /99% in/ { p99 = $3 }
            /\[200\]/ { n = $2 }
            END { print n, rate, p50 * 1e6, p99 * 1e6, "-" }' "$dir/hey.txt")
    done
}

three() { # row
    wanted "$1" || return 0
    local body="{\"key\":\"bench:{{rand 100000}}\",\"value\":\"$value\"}"
    case $1 in
        put3)
            http "$1" kvstore "${trio[*]}" -c 64 -m POST -d "$body" "http://127.0.0.1:28181/put?w=2"
            [ -z "${leader-}" ] || http "$1" etcd "${etcds[*]}" -c 64 -m POST $etcd_keys -d "$etcd_put" http://127.0.0.1:$leader/v3/kv/put ;;
        get3)
            http "$1" kvstore "${trio[*]}" -c 64 "http://127.0.0.1:28181/get?key=hot&r=2"
            [ -z "${leader-}" ] || http "$1" etcd "${etcds[*]}" -c 64 -m POST -d "$etcd_get" http://127.0.0.1:$leader/v3/kv/range ;;
    esac
}

# --- The run. ---

start_kvstore
# Eight digits are base64 too, so a key is a number as it is.
etcd_keys="-keys 100000 -key-format {seq:08}"
etcd_put="{\"key\":\"{{key}}\",\"value\":\"$(base64_of "$value")\"}"
etcd_get="{\"key\":\"$(base64_of hot)\"}"
start_nginx
start_redis
for round in $(seq "$rounds"); do
    say "round $round of $rounds"
    gets get64 64 1
    gets get512 512 1
    gets get16x 64 16
    hey hey50 50
    hey hey500 500
    puts put64 64
    puts put512 512
    puts put1 1
    own batch -c 16 -workload batch
    own scan -c 16 -workload scan
done
[ -z "${redis-}" ] || stop "$redis"
[ -z "${nginx-}" ] || stop "$nginx"
unset redis nginx
stop "$kv"
start_etcd
start_kvstore
if [ -n "${etcd-}" ]; then
    for round in $(seq "$rounds"); do
        puts put64e 64
        puts put1e 1
    done
    stop "$etcd"
    unset etcd
fi
stop "$kv"
if wanted put3 || wanted get3; then
    # Three nodes do not fit on one core beside the client: everything runs on all cores.
    pin=
    kvstore_trio
    etcd_trio
    sleep 4 # the members find each other
    curl -sf -X POST "127.0.0.1:28181/put?w=3" -d "{\"key\":\"hot\",\"value\":\"$value\"}" >/dev/null
    if [ -n "${leader-}" ]; then
        hot="{\"key\":\"$(base64_of hot)\",\"value\":\"$(base64_of "$value")\"}"
        curl -sf -X POST http://127.0.0.1:$leader/v3/kv/put -d "$hot" >/dev/null
    fi
    for round in $(seq "$rounds"); do
        three put3
        three get3
    done
fi

# --- The table. ---

cpu=$(awk -F': ' '/model name/ { print $2; exit }' /proc/cpuinfo)
printf '%s, %s cores, Linux %s, %s. `benches/compare.sh -rounds %s -seconds %s`\n\n' \
    "$cpu" "$(nproc)" "$(uname -r)" "$(date -u +%Y-%m-%d)" "$rounds" "$seconds"
awk -F'\t' '
    function median(key, field,    n, at, to, list, moved) {
        n = split(all[key, field], list, " ")
        for (at = 2; at <= n; at++)
            for (to = at; to > 1 && list[to - 1] + 0 > list[to] + 0; to--) {
                moved = list[to]; list[to] = list[to - 1]; list[to - 1] = moved
            }
        if (n % 2) return list[(n + 1) / 2]
        return (list[n / 2] + list[n / 2 + 1]) / 2
    }
    function shown(x) { return x == "-" ? "–" : x >= 100 ? sprintf("%.0f", x) : x >= 10 ? sprintf("%.1f", x) : sprintf("%.2f", x) }
    BEGIN {
        split("get64 GET,_one_key,_64_connections|get512 GET,_512_connections|get16x GET,_64_connections,_16_requests_pipelined|" \
              "hey50 GET_by_hey_-c_50|hey500 GET_by_hey_-c_500|put64 durable_PUT,_64_connections|put512 durable_PUT,_512_connections|" \
              "put1 durable_PUT,_1_connection|batch batch_of_100,_16_connections|scan scan_of_100_rows,_16_connections|" \
              "put64e durable_PUT,_64_connections,_beside_etcd|put1e durable_PUT,_1_connection,_beside_etcd|" \
              "put3 three_nodes,_PUT_w=2,_64_connections|get3 three_nodes,_GET_r=2,_64_connections", rows, "|")
        print "| Work | Server | requests/s | p50 µs | p99 µs | p99.9 µs | CPU µs/request |"
        print "|---|---|---:|---:|---:|---:|---:|"
    }
    {
        key = $1 SUBSEP $2
        if (!(key in known)) { known[key] = 1; servers[$1] = servers[$1] " " $2 }
        for (field = 4; field <= 8; field++) all[key, field] = all[key, field] " " $field
    }
    END {
        for (at = 1; at in rows; at++) {
            split(rows[at], words, " ")
            title = words[2]; gsub(/_/, " ", title)
            count = split(servers[words[1]], list, " ")
            for (one = 1; one <= count; one++) {
                key = words[1] SUBSEP list[one]
                printf "| %s | %s | %.0f | %s | %s | %s | %s |\n", one == 1 ? title : "", list[one], median(key, 4),
                    shown(median(key, 5)), shown(median(key, 6)), shown(median(key, 7)), shown(median(key, 8))
            }
        }
    }' "$results"
