# shellcheck shell=bash
# Kubernetes' own end-to-end suite, and the images that its conformance tests run, from source and from this machine's
# Debian packages. Sourced by scripts/kubernetes.

CONFORMANCE=$REPO/tests/conformance

# The suite as a test binary, what runs it, and agnhost, which most of its pods run.
build_conformance() {
	local mod=$1 bin=$2 agnhost=$3
	say "compiling Kubernetes' own tests: about 3 minutes on 2 cores the first time"
	(cd "$CONFORMANCE" && export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off &&
		go test -c -modfile="$mod" -trimpath -ldflags '-s -w' -o "$bin/e2e.test" . &&
		go build -modfile="$mod" -trimpath -ldflags '-s -w' -o "$bin/ginkgo" github.com/onsi/ginkgo/v2/ginkgo &&
		go build -modfile="$mod" -trimpath -ldflags '-s -w' -o "$agnhost" k8s.io/kubernetes/test/images/agnhost)
}

# The reference by which the suite of this version asks for an image: a constant of test/utils/image/manifest.go.
suite_image() {
	local manifest=$1 image=$2 pattern='list\.PromoterE2eRegistry, "\(.*\)", "\(.*\)"'
	sed -n "s|^\tconfigs\[$image\] = *Config{$pattern}\$|registry.k8s.io/e2e-test-images/\1:\2|p" "$manifest"
}

# One layout for all: they share their layers.
conformance_images() {
	local out=$1 kubernetes=$2 agnhost=$3 layout=$WORK/conformance root
	local manifest=$kubernetes/test/utils/image/manifest.go images=$kubernetes/test/images shell tools layer image
	root=$WORK/suite-shell
	base_files "$root"
	busybox_files "$root"
	shell=$(put_layer "$layout" "$root")

	# What the tests call in it, and the users that they run it as.
	root=$WORK/suite-tools
	mkdir -p "$root/etc" "$root/uploads" "$root/root"
	copy_programs "$root" "$(command -v bash)" "$(command -v curl)" "$(command -v dig)" "$(command -v getent)" \
		"$(command -v ip)" "$(command -v ipcs)" "$(command -v ss)" /usr/bin/nc.openbsd
	ln -s nc.openbsd "$root/usr/bin/nc"
	# busybox's shell would call its own nc, whatever the path says.
	mkdir -p "$root/bin"
	ln -sf "$(command -v bash)" "$root/bin/sh"
	printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/nonexistent:/bin/false \
		user-defined-in-image:x:1000:1000::/home/user:/bin/sh >"$root/etc/passwd"
	printf '%s\n' root:x:0: nogroup:x:65534: user-defined-in-image:x:1000: \
		group-defined-in-image:x:50000:user-defined-in-image >"$root/etc/group"
	cp "$agnhost" "$root/agnhost"
	ln -s agnhost "$root/agnhost-2"
	cp "$images"/agnhost/porter/localhost.{crt,key} "$root/"
	build_network coredns . "$root/coredns" CGO_ENABLED=0
	tools=$(put_layer "$layout" "$root")
	for image in Agnhost AgnhostPrev; do
		put_suite_image "$image" '"Entrypoint":["/agnhost"],"Cmd":["pause"]' "$shell" "$tools"
	done
	put_suite_image GlibcDnsTesting '' "$shell" "$tools"
	put_suite_image BusyBox '"Cmd":["sh"]' "$shell"
	put_suite_image NonRoot '"User":"1234","Cmd":["sh"]' "$shell"

	# It says as whom it runs: its file has the bit that may be forbidden.
	root=$WORK/suite-nnp
	mkdir -p "$root/usr/local/bin"
	(cd "$images/nonewprivs" && CGO_ENABLED=0 GOWORK=off GO111MODULE=off go build -trimpath -ldflags '-s -w' -o "$root/usr/local/bin/nnp" nnp.go)
	chmod 4755 "$root/usr/local/bin/nnp"
	put_suite_image Nonewprivs '"Cmd":["nnp"]' "$shell" "$(put_layer "$layout" "$root")"

	for image in nautilus kitten; do
		root=$WORK/suite-$image
		mkdir -p "$root"
		cp "$images/$image"/html/* "$root/"
		put_suite_image "${image^}" '"Entrypoint":["/agnhost"],"Cmd":["test-webserver"]' "$shell" "$tools" "$(put_layer "$layout" "$root")"
	done

	root=$WORK/suite-nginx
	nginx_files "$root"
	layer=$(put_layer "$layout" "$root")
	for image in Nginx NginxNew; do
		put_suite_image "$image" '"Cmd":["nginx","-g","daemon off;"]' "$shell" "$layer"
	done
	finish_layout "$layout" "$out/conformance.tar"
}

# An image of the suite's, unless this version has none of that name.
put_suite_image() {
	local name
	name=$(suite_image "$manifest" "$1")
	shift
	[[ -z $name ]] || put_image "$layout" "$name" "$@"
}

# Debian's nginx where upstream's image has its pages.
nginx_files() {
	local root=$1
	mkdir -p "$root"/etc/nginx "$root"/usr/share/nginx/html "$root"/var/{cache,log}/nginx "$root"/var/lib/nginx "$root"/run
	copy_programs "$root" "$(command -v nginx)"
	echo '<!DOCTYPE html><title>Welcome to nginx!</title><h1>Welcome to nginx!</h1>' >"$root/usr/share/nginx/html/index.html"
	cat >"$root/etc/nginx/nginx.conf" <<-'END'
		user nobody nogroup;
		pid /run/nginx.pid;
		error_log /dev/stderr;
		events {}
		http {
		    access_log /dev/stdout;
		    server {
		        listen 80;
		        root /usr/share/nginx/html;
		    }
		}
	END
}
