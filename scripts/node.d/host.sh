# shellcheck shell=bash
# What of this machine a test node uses: a bridge, cgroups, processes. Sourced by scripts/node.

BRIDGE=hoist0
SUBNET=10.10.0
GATEWAY=$SUBNET.1
CGROUP_PREFIX=hoist-

# Runs a command until it succeeds; gives up after so many seconds.
wait_until() {
	local deadline=$((SECONDS + $1))
	shift
	until "$@"; do
		((SECONDS < deadline)) || return 1
		sleep 0.05
	done
}

# Changes to what all nodes share happen one at a time. The lock is on a folder that is always
# there, so that no lock file stays behind.
with_lock() {
	local status=0 lock
	exec {lock}</var/lib
	flock --wait 120 "$lock" || die "another scripts/node has held the lock on /var/lib for 2 minutes; see what it does: ps ax | grep scripts/node"
	"$@" || status=$?
	exec {lock}<&-
	return "$status"
}

# --- processes ---------------------------------------------------------------

# When a process started, in clock ticks: with its id, proof that it is the same one. Nothing for a dead one.
start_time() {
	local stat fields
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
	read -ra fields <<<"${stat##*) }"
	[[ ${fields[0]} == [ZX] ]] || echo "${fields[19]}"
}

# The id of the node's init, if it lives.
init_of() {
	local pid started
	[[ -e $NODES/$1/init ]] || return 0
	read -r pid started <"$NODES/$1/init" || return 0
	[[ -z $started || $(start_time "$pid") != "$started" ]] || echo "$pid"
}

is_running() {
	[[ -n $(init_of "$1") ]]
}

# --- cgroups -------------------------------------------------------------------

hierarchies() {
	local path type
	while read -r _ path type _; do
		[[ $type != cgroup?(2) || $path != /sys/fs/cgroup* ]] || echo "$path"
	done </proc/self/mounts
}

# A group for the node in every hierarchy.
make_cgroups() {
	local hierarchy group setting
	for hierarchy in $(hierarchies); do
		group=$hierarchy/$CGROUP_PREFIX$1
		mkdir -p "$group"
		for setting in cpuset.cpus cpuset.mems; do
			if [[ -e $hierarchy/$setting && -z $(cat "$group/$setting") ]]; then
				cat "$hierarchy/$setting" >"$group/$setting"
			fi
		done
		# A host may run a few things before all others, as keepalived asks for; a group of its own may not by itself.
		if [[ -e $group/cpu.rt_runtime_us ]]; then
			{ echo 100000 >"$group/cpu.rt_period_us" && echo 7500 >"$group/cpu.rt_runtime_us"; } 2>/dev/null || true
		fi
	done
}

# Puts this process into the node's groups.
enter_cgroups() {
	local hierarchy group
	for hierarchy in $(hierarchies); do
		group=$hierarchy/$CGROUP_PREFIX$1
		# With cgroup v2 alone, systemd has moved itself down and no process may stay above it.
		[[ ! -d $group/init.scope || $hierarchy != /sys/fs/cgroup ]] || group+=/init.scope
		echo "$BASHPID" >"$group/cgroup.procs"
	done
}

# The folders of the node's groups that are there.
cgroup_folders() {
	local hierarchy
	for hierarchy in $(hierarchies); do
		[[ ! -d $hierarchy/$CGROUP_PREFIX$1 ]] || echo "$hierarchy/$CGROUP_PREFIX$1"
	done
}

# Kills all that is in the node's groups: what a node left there when it was interrupted before its init was known.
kill_cgroups() {
	local folder pid
	while read -r folder; do
		while read -r pid; do
			# 0 is a process that this namespace cannot see, and to kill it would be to kill ourselves.
			((pid == 0)) || kill -9 "$pid" 2>/dev/null || true
		done < <(find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null)
	done < <(cgroup_folders "$1")
}

# One turn at removing them, children first. A group is busy until its last process is gone.
removed_cgroups() {
	local folders
	mapfile -t folders < <(cgroup_folders "$1")
	((${#folders[@]} > 0)) || return 0
	find "${folders[@]}" -depth -type d -exec rmdir {} + 2>/dev/null || true
	[[ -z $(cgroup_folders "$1") ]]
}

# --- network -------------------------------------------------------------------

veth_of() {
	echo "hoist-${1##*.}"
}

ensure_bridge() {
	if [[ ! -e /sys/class/net/$BRIDGE ]]; then
		# With an address of its own: one that it has from its ports changes as nodes come and go, and all others lose what
		# they send to this machine until they have asked again whose it is.
		ip link add "$BRIDGE" address 02:68:6f:69:73:74 type bridge || die "this kernel makes no network bridge; the module is named bridge"
	fi
	ip address replace "$GATEWAY/24" dev "$BRIDGE" && ip link set "$BRIDGE" up
}

# The bridge goes with the last node; so does what an interrupted unpacking of images left.
remove_shared() {
	local ports
	rm -rf /tmp/hoist-images.*
	ports=$(ls "/sys/class/net/$BRIDGE/brif" 2>/dev/null) || return 0
	if [[ -z $ports && -z $(node_names) ]]; then
		ip link delete "$BRIDGE"
	fi
}

# eth0 of the node. Its hardware address follows from its IP address: after a power cut nobody's neighbour table is wrong.
connect() {
	local address=$1 pid=$2 pod_network=$3 veth
	veth=$(veth_of "$address")
	ip link delete "$veth" 2>/dev/null || true
	ip link add "$veth" type veth peer name eth0 address "$(printf '02:00:0a:0a:00:%02x' "${address##*.}")" netns "$pid" &&
		ip link set "$veth" master "$BRIDGE" up || return
	# The machine reaches the node's pods, too.
	[[ -z $pod_network ]] || ip route replace "10.244.${address##*.}.0/24" via "$address" dev "$BRIDGE"
}

disconnect() {
	local address=$1
	ip link delete "$(veth_of "$address")" 2>/dev/null || true
	ip route delete "10.244.${address##*.}.0/24" dev "$BRIDGE" 2>/dev/null || true
}
