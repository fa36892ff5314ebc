#!/bin/sh
# remove.sh GROUP STATE CGROUP...: ends a node and removes its files and cgroups.
#
# GROUP is the process group of what made its namespaces, or - if that has ended. All processes of the node end with it,
# and mounts and networks end with the last process.
state=$2
[ "$1" = - ] || kill -s KILL -- "-$1" 2>/dev/null
shift 2
for cgroup in "$@"; do
    tries=0
    # A cgroup can be removed a moment after its last process has ended.
    while [ -d "$cgroup" ] && [ "$tries" -lt 100 ]; do
        find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
        tries=$((tries + 1))
    done
done
rm -rf -- "$state"
