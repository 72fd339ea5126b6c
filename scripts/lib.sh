# shellcheck shell=bash
# Helpers shared by the scripts of this folder. Source it; it sets REPO and CACHE.

REPO=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # as below
CACHE=${HOIST_CACHE:-$REPO/.cache}

# Kubernetes' version where none is asked for.
# shellcheck disable=SC2034 # used by the scripts that source this file
DEFAULT_KUBERNETES=1.37.2

# How Go compiles all of it: what two scripts ask for is then compiled once. Nobody debugs these: without what a debugger
# reads they are compiled in a tenth less time.
# shellcheck disable=SC2034 # used by the scripts that source this file
GO_FLAGS='-buildvcs=false -trimpath -gcflags=all=-dwarf=false'

# Programs that the scripts call, and the Debian packages that have them.
PROGRAMS=(
	containerd=containerd
	ctr=containerd
	runc=runc
	ip=iproute2
	iptables=iptables
	nft=nftables
	conntrack=conntrack
	socat=socat
	ethtool=ethtool
	busybox=busybox-static
	gcc=gcc
	nsenter=util-linux
	mount=mount
	pgrep=procps
	journalctl=systemd
	/lib/systemd/systemd=systemd
	/usr/lib/cni/bridge=containernetworking-plugins
	/usr/include/stdlib.h=libc6-dev
	curl=curl
)

# What only the e2e tests call.
# shellcheck disable=SC2034 # used by scripts/test
E2E_PROGRAMS=(
	/usr/sbin/sshd=openssh-server
	ssh=openssh-client
	rpmbuild=rpm
	cpio=cpio
)

# One plain line on stderr: stdout is for what a command is asked to print.
say() {
	printf '%s\n' "$*" >&2
}

# What failed, why and what to do next; then the end.
die() {
	say "${0##*/}: $*"
	exit 1
}

# One hash of several files: the same hash means the same result.
sum_of() {
	sha256sum "$@" | cut -d' ' -f1 | sha256sum | cut -d' ' -f1
}

missing_programs() {
	missing_entries "${PROGRAMS[@]}"
}

# The entries, of those given, that this machine does not have.
missing_entries() {
	local entry program
	for entry in "$@"; do
		program=${entry%%=*}
		[[ -e $program ]] || command -v "$program" >/dev/null || echo "$entry"
	done
}

ensure_programs() {
	ensure_entries "${PROGRAMS[@]}"
}

# Installs what is missing of the entries given, once, where that can be done; says what is missing where it cannot.
ensure_entries() {
	local missing entry packages=()
	mapfile -t missing < <(missing_entries "$@")
	if ((${#missing[@]} > 0)); then
		if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
			for entry in "${missing[@]}"; do
				say "missing: ${entry%%=*} (Debian's package ${entry#*=})"
			done
			die "cannot install them: that takes root and Debian's apt-get. Install them and run this again."
		fi
		mapfile -t packages < <(printf '%s\n' "${missing[@]#*=}" | sort -u)
		say "installing Debian packages: ${packages[*]}"
		install_packages "${packages[@]}"
	fi
}

# Installs a subcommand of cargo at one version, if that is not there: `ensure_cargo_tool cargo-NAME VERSION`. What else is
# given, `cargo install` gets.
ensure_cargo_tool() {
	local tool=$1 version=$2 found=''
	shift 2
	read -r _ found _ < <(cargo "${tool#cargo-}" --version 2>/dev/null) || true
	[[ $found != "$version" ]] || return 0
	say "installing $tool $version by cargo: up to three minutes, once"
	# Neither optimised nor for a debugger: it mostly waits for others, and compiles in a fraction of the time.
	CARGO_PROFILE_DEV_DEBUG=0 cargo install --locked --debug --quiet --force --version "$version" "$@" "$tool"
}

# Debian starts and enables a service when its package is installed. The test nodes
# run containerd and sshd; the machine itself must not.
install_packages() (
	# One at a time, whoever asks: apt-get itself does not wait for another.
	exec {lock}<"$(command -v apt-get)"
	flock "$lock"
	policy=/usr/sbin/policy-rc.d
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	if [[ ! -e $policy ]]; then
		trap 'rm -f "$log" "$policy"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
		tail -n 20 "$log" >&2
		die "apt-get could not install: $* (its last lines are above). Repair that and run this again."
	fi
	for service in containerd=containerd openssh-server=ssh nginx-light=nginx; do
		[[ " $* " != *" ${service%%=*} "* ]] || systemctl disable "${service#*=}.service" >/dev/null 2>&1 || true
	done
)
