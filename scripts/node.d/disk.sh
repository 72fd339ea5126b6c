# shellcheck shell=bash
# A test node's disk: what it has when it is switched on for the first time. Sourced by scripts/node.

# Units that stay, of all that systemd starts by itself: logs and the bus. The others touch the machine.
KEPT_UNITS=(
	systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket
	systemd-journal-flush.service dbus.service dbus.socket
)

# Writes the whole disk of a node into a folder.
make_disk() {
	local name=$1 address=$2 version=$3 runtime=$4 disk=$5 pod_network=$6 program
	mkdir -p "$disk"/{etc,usr/local/bin,usr/local/lib/kubernetes,opt,root,.work-etc,.work-usr,.work-opt} \
		"$disk"/private/etc-{kubernetes,containerd,cni/net.d,systemd-system} \
		"$disk"/etc/{kubernetes,containerd,cni,systemd/system} \
		"$disk"/var/{cache,tmp,log/journal,lib/{kubelet,containerd,etcd,hoist,cni,dbus}}
	chmod 1777 "$disk/var/tmp"
	chmod 700 "$disk/root" "$disk/var/lib/etcd"
	ln -s /run "$disk/var/run"
	ln -s /run/lock "$disk/var/lock"

	echo "$name" >"$disk/etc/hostname"
	printf '127.0.0.1 localhost\n::1 localhost\n%s %s\n' "$address" "$name" >"$disk/etc/hosts"
	echo "# A test node reaches no name server: names that are not in /etc/hosts fail at once." >"$disk/etc/resolv.conf"
	tr -d - </proc/sys/kernel/random/uuid >"$disk/etc/machine-id"

	# Linked, and mounted read-only in the node: a node keeps its programs when others are built.
	link_folder "$CACHE/kubernetes/v$version/bin" "$disk/private/kubernetes"
	for program in "$disk/private/kubernetes"/*; do
		ln -s "../lib/kubernetes/${program##*/}" "$disk/usr/local/bin/${program##*/}"
	done
	rm "$disk/usr/local/bin/kubernetes"
	write_units "$disk"
	if [[ $runtime == containerd2 ]]; then
		write_containerd2 "$disk" "$version"
	else
		write_containerd "$disk" "$version"
	fi
	[[ -z $pod_network ]] || write_cni "$disk/private/etc-cni/net.d" "$address"
	# Where the Kubernetes project's package kubernetes-cni has them.
	mkdir -p "$disk/opt/cni/bin"
	ln -s /usr/lib/cni/* "$disk/opt/cni/bin/"
	copy_images "$CACHE/kubernetes/v$version/containerd" "$disk/var/lib/containerd"
}

write_units() {
	local disk=$1 system=$1/private/etc-systemd-system usr=$1/usr/lib/systemd/system unit
	for unit in /lib/systemd/system/*.wants/* systemd-remount-fs.service systemd-fsck-root.service; do
		unit=${unit##*/}
		[[ " ${KEPT_UNITS[*]} " == *" $unit "* || $unit == *.target ]] || ln -sf /dev/null "$system/$unit"
	done
	mkdir -p "$system/multi-user.target.wants" "$usr/kubelet.service.d"

	# As in the Kubernetes project's Debian package, with this kubelet's path; neither enabled nor started.
	cat >"$usr/kubelet.service" <<-'END'
		[Unit]
		Description=kubelet: The Kubernetes Node Agent
		Documentation=https://kubernetes.io/docs/
		Wants=network-online.target
		After=network-online.target

		[Service]
		ExecStart=/usr/local/bin/kubelet
		Restart=always
		StartLimitInterval=0
		RestartSec=10

		[Install]
		WantedBy=multi-user.target
	END
	cat >"$usr/kubelet.service.d/10-kubeadm.conf" <<-'END'
		[Service]
		Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
		Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
		EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
		EnvironmentFile=-/etc/default/kubelet
		ExecStart=
		ExecStart=/usr/local/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
	END
}

# A unit of containerd's, without what a container may not do: load modules, be spared by the OOM killer.
write_containerd_unit() {
	local system=$1/private/etc-systemd-system program=$2 limits=$3
	cat >"$system/containerd.service" <<-END
		[Unit]
		Description=containerd container runtime

		[Service]
		Type=notify
		ExecStart=$program
		Delegate=yes
		KillMode=process
		Restart=always
		RestartSec=5
		LimitNPROC=infinity
		LimitCORE=infinity
		$limits
		TasksMax=infinity

		[Install]
		WantedBy=multi-user.target
	END
	ln -s /etc/systemd/system/containerd.service "$system/multi-user.target.wants/containerd.service"
}

# What scripts/runtime builds, where upstream's archive has it, and before Debian's on every PATH.
write_containerd2() {
	local disk=$1 version=$2 PAUSE_IMAGE
	# shellcheck source=/dev/null
	source "$CACHE/kubernetes/v$version/versions"
	cp --reflink=auto "$CACHE"/containerd2/bin/* "$disk/usr/local/bin/"
	# As upstream's: the soft limit is systemd's own, 1024.
	write_containerd_unit "$disk" /usr/local/bin/containerd '# No LimitNOFILE.'
	# restrict_oom_score_adj: as below.
	cat >"$disk/private/etc-containerd/config.toml" <<-END
		version = 3

		[plugins.'io.containerd.cri.v1.images'.pinned_images]
		  sandbox = '$PAUSE_IMAGE'

		[plugins.'io.containerd.cri.v1.runtime']
		  restrict_oom_score_adj = true
	END
}

# Debian's.
write_containerd() {
	local disk=$1 version=$2 PAUSE_IMAGE
	write_containerd_unit "$disk" /usr/bin/containerd LimitNOFILE=1048576
	# shellcheck source=/dev/null
	source "$CACHE/kubernetes/v$version/versions"
	# restrict_oom_score_adj: a container may not be spared more than its parent is, and here nothing may be.
	cat >"$disk/private/etc-containerd/config.toml" <<-END
		version = 2
		disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "$PAUSE_IMAGE"
		  restrict_oom_score_adj = true

		[plugins."io.containerd.grpc.v1.cri".containerd]
		  snapshotter = "overlayfs"

		[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		  runtime_type = "io.containerd.runc.v2"

		[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
		  SystemdCgroup = false

		[plugins."io.containerd.grpc.v1.cri".cni]
		  bin_dir = "/opt/cni/bin"
		  conf_dir = "/etc/cni/net.d"

		[plugins."io.containerd.internal.v1.opt"]
		  path = "/var/lib/containerd/opt"
	END
}

# The node's own part of 10.244.0.0/16.
write_cni() {
	cat >"$1/10-bridge.conflist" <<-END
		{
		  "cniVersion": "0.4.0",
		  "name": "pods",
		  "plugins": [
		    {
		      "type": "bridge",
		      "bridge": "cni0",
		      "isDefaultGateway": true,
		      "hairpinMode": true,
		      "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.244.${2##*.}.0/24" }]] }
		    },
		    { "type": "portmap", "capabilities": { "portMappings": true } }
		  ]
		}
	END
}

# --- images --------------------------------------------------------------------

# containerd's folder with all images in it, made once for each build of Kubernetes.
ensure_images() {
	local version=$1 top=$CACHE/kubernetes/v$1
	[[ ! -d $top/containerd ]] || return 0
	say "unpacking the images of Kubernetes $version, once"
	rm -rf "$top/containerd.new"
	import_images "$top" ||
		die "containerd could not unpack the images (its last lines are above); build them again: rm -r $top, then scripts/kubernetes $version"
	mv "$top/containerd.new" "$top/containerd"
}

# A containerd of our own, for as long as it takes; it ends with this process, however that ends.
import_images() (
	top=$1
	run=$(mktemp -d /tmp/hoist-images.XXXXXX) || exit 1
	cat >"$run/config.toml" <<-END
		version = 2
		root = "$top/containerd.new"
		state = "$run/state"
		disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
		[grpc]
		  address = "$run/sock"
		[ttrpc]
		  address = "$run/sock.ttrpc"
	END
	setpriv --pdeathsig KILL containerd --config "$run/config.toml" >"$run/log" 2>&1 &
	containerd=$!
	trap 'kill "$containerd" 2>/dev/null; wait "$containerd" 2>/dev/null; rm -rf "$run"' EXIT
	ctr_here() { ctr --address "$run/sock" --namespace k8s.io "$@" >>"$run/log" 2>&1; }
	status=0
	wait_until 30 ctr_here version || status=1
	for image in "$top"/images/*.tar; do
		((status != 0)) || ctr_here images import "$image" || status=1
	done
	((status == 0)) || tail -n 20 "$run/log" >&2
	exit "$status"
)

# Unpacked layers and blobs are never written to again: every node has the same files, not copies
# (so they are also in memory once). Only the databases that name them are the node's own.
copy_images() {
	local from=$1 to=$2 database
	link_folder "$from" "$to"
	find "$to" -name '*.db' -print0 | while IFS= read -r -d '' database; do
		cp -a "$database" "$database.own"
		mv "$database.own" "$database"
	done
}

# The same files in another folder; copies of them where that is on another file system.
link_folder() {
	local from=$1 to=$2
	mkdir -p "$to"
	if ! cp -al "$from/." "$to/" 2>/dev/null; then
		rm -rf "${to:?}"
		mkdir -p "$to"
		cp -a --reflink=auto "$from/." "$to/"
	fi
}
