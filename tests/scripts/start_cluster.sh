#!/usr/bin/env bash
# Starts a cluster of three nodes on this machine, for trying out. Ctrl-C stops it; the data stays.
#
#   PORT=9001 DIR=/srv/kv tests/scripts/start_cluster.sh      other ports (three in a row), another place
PORT=${PORT:-8081}
DIR=${DIR:-./data}
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2317 # the trap calls it
stop_all() {
    trap '' INT TERM
    printf '\nstopping ...\n'
    local at status=0
    for at in "${!pids[@]}"; do stop_node "$at" || status=1; done
    printf 'stopped; the data is in %s\n' "$work"
    exit "$status"
}

prepare
start_nodes
trap stop_all INT TERM

cat <<TEXT

Three nodes are running, each with a copy of every key:

    $(url 1)    $work/node1, pid ${pids[1]}
    $(url 2)    $work/node2, pid ${pids[2]}
    $(url 3)    $work/node3, pid ${pids[3]}

Try, in another terminal:

    curl -X POST $(url 1)/put -d '{"key":"user:1001","value":"Alice Smith"}'
    curl "$(url 2)/get?key=user:1001"
    curl $(url 3)/health

    kill -9 ${pids[3]}    # node 3 fails, the other two go on

Ctrl-C stops all of them. What they print is in $work/node1.out, node2.out and node3.out.
TEXT

# A node that is killed is part of the game; when none is left it is over.
while [ -n "${pids[*]}" ]; do
    for at in "${!pids[@]}"; do
        if has_ended "$at"; then
            printf 'node %d has ended; to start it again, in another terminal:\n\n    %s -port %s -peers "%s" -dir %s\n\n' \
                "$at" "$binary" "${ports[at]}" "$(peers_of "$at")" "$work/node$at"
            crash_node "$at"
        fi
    done
    sleep 0.2
done
die "no node is left"
