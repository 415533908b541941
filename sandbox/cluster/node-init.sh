#!/bin/bash
# First process of a sandbox node: builds the node's own root file system and becomes its init.
#
#   node-init.sh build NODE_DIR HOSTNAME TOOLS_DIR   (in new mount, PID, UTS, IPC namespaces and the node's network)
#   node-init.sh run                                 (inside the node's root, under tini)
#
# The root is the host's /usr and /etc as the lower layers of an overlay; all that the node
# writes lands below NODE_DIR, so the host is never changed and one rm -r removes the node.
set -euo pipefail

build() {
  local dir=$1 hostname=$2 tools=$3 root=$1/root
  mount --make-rprivate /
  hostname "$hostname"
  mkdir -p "$root" "$dir"/{etc,usr,work-etc,work-usr,var,root-home,home,opt,srv}
  mount -t tmpfs -o mode=755,size=16m tmpfs "$root"
  mkdir -p "$root"/{etc,usr,var,root,home,opt,srv,proc,sys,dev,run,tmp,mnt,old}
  for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
  mount -t overlay overlay -o "lowerdir=$tools:/usr,upperdir=$dir/usr,workdir=$dir/work-usr" "$root/usr"
  mount -t overlay overlay -o "lowerdir=/etc,upperdir=$dir/etc,workdir=$dir/work-etc" "$root/etc"
  mount --bind "$dir/var" "$root/var"
  mount --bind "$dir/root-home" "$root/root"
  mount --bind "$dir/opt" "$root/opt"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  mount -t proc proc "$root/proc"
  mount -t sysfs sysfs "$root/sys"
  mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
  mount --rbind /dev "$root/dev"
  mkdir -p "$dir"/var/{lib/kubelet,lib/containerd,lib/etcd,log,tmp,cache,openebs,empty}
  ln -sfn /run "$dir/var/run"
  chmod 700 "$dir/root-home"
  chmod 1777 "$dir/var/tmp"
  cp "${BASH_SOURCE[0]}" "$root/run/node-init.sh"
  cd "$root"
  pivot_root . old
  umount -l /old
  rmdir /old
  mount --make-rshared /
  exec tini -g -- /bin/bash /run/node-init.sh run
}

# Starts a program again whenever it ends, as systemd's Restart=always would.
keep() {
  local name=$1
  shift
  while :; do
    "$@" >>"/var/log/$name.log" 2>&1 || true
    sleep 1
  done
}

kubelet() {
  # kubeadm writes these files during init or join and then expects the kubelet to start.
  until [[ -e /var/lib/kubelet/kubeadm-flags.env && -e /var/lib/kubelet/config.yaml ]] &&
    [[ -e /etc/kubernetes/bootstrap-kubelet.conf || -e /etc/kubernetes/kubelet.conf ]]; do
    sleep 0.2
  done
  local KUBELET_KUBEADM_ARGS=""
  # shellcheck disable=SC1091
  . /var/lib/kubelet/kubeadm-flags.env
  # shellcheck disable=SC2086
  exec /usr/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
    --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS
}

run() {
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin
  export HOME=/root
  mkdir -p /run/sshd /run/lock
  keep containerd /usr/bin/containerd --config /etc/containerd/sandbox.toml &
  keep sshd /usr/sbin/sshd -D -e -f /etc/ssh/sandbox_sshd_config &
  keep kubelet /bin/bash /run/node-init.sh kubelet &
  wait
}

"$@"
