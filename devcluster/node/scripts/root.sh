#!/bin/sh
# root.sh STATE PACKAGES: makes the node's file system, enters it and becomes the node's PID 1.
#
# It runs in new namespaces. What is below STATE is the node's alone; of the machine it sees /usr and /etc, with PACKAGES
# over them, as lower layers of overlays, and /dev. Nothing of the machine is written.
set -eu
state=$1
packages=$2
root=$state/root

mount -t tmpfs -o mode=755 node "$root"
for name in usr etc; do
    mkdir -p "$root/$name" "$state/overlay/$name/upper" "$state/overlay/$name/work"
    mount -t overlay -o "lowerdir=$packages/$name:/$name,upperdir=$state/overlay/$name/upper,workdir=$state/overlay/$name/work" \
        overlay "$root/$name"
done
for name in bin sbin lib lib64; do
    [ ! -L "/$name" ] || cp -P "/$name" "$root/$name"
done

mkdir "$root/var" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/root" "$root/machine"
# In memory, a little over a gigabyte with images: nothing is written to the disk, and nothing has to be deleted from it.
mount -t tmpfs -o mode=755 var "$root/var"
mkdir -p "$root/var/lib" "$root/var/log/pods" "$root/var/cache" "$root/var/tmp"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"

# In this cgroup namespace each hierarchy begins at the node's own cgroup.
mount -t tmpfs -o mode=755 cgroup "$root/sys/fs/cgroup"
while read -r options name; do
    mkdir "$root/sys/fs/cgroup/$name"
    mount -t cgroup -o "$options" cgroup "$root/sys/fs/cgroup/$name"
done <"$state/cgroups"

# The kubelet sets these for the whole machine; here it finds them set, in files of the node's own.
for file in $(cd "$state/sysctl" && find . -type f); do
    mount --bind "$state/sysctl/$file" "$root/proc/sys/$file"
done

# STATE and the programs are where they are outside, so that a path means the same in both.
mkdir -p "$root/$state"
mount --bind "$state" "$root/$state"
for link in "$state"/bin/*; do
    [ -L "$link" ] || continue
    program=$(readlink "$link")
    mkdir -p "$root/${program%/*}"
    : >"$root/$program"
    mount --bind "$program" "$root/$program"
done

cd "$root"
pivot_root . machine
cd /
umount -l /machine
rmdir /machine
# Mounts that the kubelet makes have to reach containers.
mount --make-rshared /
hostname node1
exec "$state/bin/pause"
