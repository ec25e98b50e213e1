#!/bin/busybox sh
# The first process of the VM: mounts what a Linux has, hands all cgroup v2 controllers down, runs /test, says its
# status on the console, and switches off.
export PATH=/bin HOME=/root
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /mnt /var
/bin/busybox chmod 1777 /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts
mount -t devpts pts /dev/pts
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
echo 1 >/proc/sys/kernel/printk
hostname vm
ip link set lo up
# A group with processes of its own may not have children with controllers: init moves into a leaf.
mkdir /sys/fs/cgroup/init
echo $$ >/sys/fs/cgroup/init/cgroup.procs
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
  echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done
/test
echo "VM-TEST-STATUS:$?"
poweroff -f
