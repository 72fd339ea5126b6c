# shellcheck shell=bash
# The images of a cluster's network, built from source: flannel, its CNI plugin, CoreDNS. Sourced by scripts/kubernetes.

NETWORK=$REPO/tests/network
FLANNEL_VERSION=v0.28.10
# What the published image has at this tag; here it is the plugin as it was among the reference plugins.
FLANNEL_CNI_VERSION=v1.9.1-flannel3

# Compiles a package of one of the modules in tests/network into a file.
build_network() {
	local module=$1 package=$2 out=$3
	shift 3
	(cd "$NETWORK/$module" && env "$@" go build -ldflags "${LDFLAGS:--s -w}" -o "$out" "$package")
}

# flanneld; its image also has a shell, ip, iptables and nft, as the published one.
flannel_images() {
	local out=$1 layout=$WORK/flannel root=$WORK/flannel-root layer
	base_files "$root"
	mkdir -p "$root/opt/bin" "$root/bin"
	# Linked to glibc, which warns of functions that need its shared libraries: flanneld looks up no users.
	LDFLAGS="-s -w -X github.com/flannel-io/flannel/pkg/version.Version=$FLANNEL_VERSION -extldflags -static" \
		build_network flannel github.com/flannel-io/flannel "$root/opt/bin/flanneld" CGO_ENABLED=1 2>"$WORK/flannel.log" ||
		{ cat "$WORK/flannel.log" >&2 && die "flanneld cannot be compiled (above)"; }
	busybox_files "$root"
	rm -f "$root/bin/ip"
	packet_filter_files "$root" "$(command -v ip)"
	layer=$(put_layer "$layout" "$root")
	put_image "$layout" "ghcr.io/flannel-io/flannel:$FLANNEL_VERSION" '"Entrypoint":["/opt/bin/flanneld"]' "$layer"

	root=$WORK/flannel-cni-root
	base_files "$root"
	build_network flannel-cni-plugin github.com/containernetworking/plugins/plugins/meta/flannel "$root/flannel" CGO_ENABLED=0
	busybox_files "$root"
	layer=$(put_layer "$layout" "$root")
	put_image "$layout" "ghcr.io/flannel-io/flannel-cni-plugin:$FLANNEL_CNI_VERSION" '' "$layer"
	finish_layout "$layout" "$out/flannel.tar"
}

# CoreDNS by the name that kubeadm of this version asks for, whatever version tests/network pins.
coredns_image() {
	local out=$1 version=$2 layout=$WORK/coredns root=$WORK/coredns-root
	base_files "$root"
	build_network coredns . "$root/coredns" CGO_ENABLED=0
	put_image "$layout" "registry.k8s.io/coredns/coredns:$version" '"Entrypoint":["/coredns"]' "$(put_layer "$layout" "$root")"
	finish_layout "$layout" "$out/coredns.tar"
}
