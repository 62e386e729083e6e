#!/usr/bin/busybox sh
# The guest's first process: mounts what memtrace and its tests look at, runs /command in /t, says
# its status on a line of its own and switches the machine off.
/usr/bin/busybox --install -s /usr/bin
export PATH=/t:/usr/bin HOME=/root TERM=dumb LC_ALL=C

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
ln -s /proc/self/fd /dev/fd
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
mount -t bpf bpf /sys/fs/bpf 2>/dev/null
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in memory pids cpu; do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done 2>/dev/null
ip link set lo up 2>/dev/null

for argument in $(cat /proc/cmdline); do
    case $argument in memtrace.output=*) output=/dev/${argument#*=} ;; esac
done
# Lines end as they were written, not as a terminal would have them.
stty -F "$output" -opost 2>/dev/null

cd /t
echo "=== memtrace-vm begin $(uname -r)" > "$output"
sh /command < /dev/null > "$output" 2>&1
status=$?
echo "=== memtrace-vm end $status" > "$output"
sync
poweroff -f
