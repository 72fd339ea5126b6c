# shellcheck shell=bash
# Kubernetes' own end-to-end suite, and the images that its conformance tests run, from source and from this machine's
# Debian packages. Sourced by scripts/kubernetes.

CONFORMANCE=$REPO/tests/conformance

# What the tests' images are made of besides.
# shellcheck disable=SC2034 # used by scripts/kubernetes
SUITE_PROGRAMS=(
	dig=bind9-dnsutils
	/usr/bin/nc.openbsd=netcat-openbsd
	ipcs=util-linux
	nginx=nginx-light
)

# The suite as a test binary, what runs it, and what its pods run.
build_conformance() {
	local version=$1 mod=$2 bin=$3 out=$4 flags
	# Some tests choose by it what they expect.
	flags="-s -w$(version_flags "$version")"
	say "compiling Kubernetes' own tests: about 3 minutes on 2 cores the first time"
	(cd "$CONFORMANCE" && export CGO_ENABLED=0 &&
		go test -c -vet=off -modfile="$mod" -ldflags "$flags" -o "$bin/e2e.test" . &&
		go build -modfile="$mod" -ldflags '-s -w' -o "$bin/ginkgo" github.com/onsi/ginkgo/v2/ginkgo &&
		go build -modfile="$mod" -ldflags '-s -w' -o "$out/" k8s.io/kubernetes/test/images/agnhost k8s.io/sample-apiserver)
	all_conformance_tests "$version" "$bin/e2e.test" "${KUBEADM_CONSTANTS%/cmd/*}"
}

# Ends where the suite lacks conformance tests that Kubernetes lists: it imports the packages of tests one by one.
all_conformance_tests() {
	local version=$1 suite=$2 kubernetes=$3 has listed
	has=$("$suite" --ginkgo.dry-run --ginkgo.no-color --ginkgo.focus='\[Conformance\]' | sed -n 's/^Ran \([0-9]*\) of .*/\1/p')
	listed=$(grep -c '^ *codename:' "$kubernetes/test/conformance/testdata/conformance.yaml")
	[[ $has == "$listed" ]] ||
		die "the suite has ${has:-no} conformance tests of Kubernetes $version, which lists $listed: tests/conformance/suite_test.go does not import the packages of all"
}

# The reference by which the suite of this version asks for an image: a constant of test/utils/image/manifest.go.
suite_image() {
	local manifest=$1 config="^\tconfigs\[$2\] *= Config{list" named='"\(.*\)", "\(.*\)"}$'
	sed -n -e "s|$config\.PromoterE2eRegistry, $named|registry.k8s.io/e2e-test-images/\1:\2|p" \
		-e "s|$config\.GcEtcdRegistry, $named|registry.k8s.io/\1:\2|p" "$manifest"
}

# One layout for all: they share their layers.
conformance_images() {
	local out=$1 kubernetes=$2 programs=$3 layout=$WORK/conformance root
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
	cp "$programs/agnhost" "$root/agnhost"
	ln -s agnhost "$root/agnhost-2"
	cp "$images"/agnhost/porter/localhost.{crt,key} "$root/"
	build_network coredns . "$root/coredns" CGO_ENABLED=0
	tools=$(put_layer "$layout" "$root")
	for image in Agnhost AgnhostPrev; do
		put_suite_image "$image" '"Entrypoint":["/agnhost"],"Cmd":["pause"]' "$shell" "$tools"
	done
	# One and the same by its names before 1.36 and since.
	for image in JessieDnsutils GlibcDnsTesting; do
		put_suite_image "$image" '' "$shell" "$tools"
	done
	root=$WORK/suite-sh
	suite_sh "$root"
	put_suite_image BusyBox '"Cmd":["sh"]' "$shell" "$tools" "$(put_layer "$layout" "$root")"
	put_suite_image NonRoot '"User":"1234","Cmd":["sh"]' "$shell"

	root=$WORK/suite-api-server
	mkdir -p "$root"
	cp "$programs/sample-apiserver" "$root/"
	put_suite_image APIServer '"Entrypoint":["/sample-apiserver"]' "$(put_layer "$layout" "$root")"

	# They may ask for another etcd than kubeadm of their version does. Any can store what a test API server has.
	if [[ "$(suite_image "$manifest" Etcd)" != "$ETCD_IMAGE" ]]; then
		root=$WORK/suite-etcd
		base_files "$root"
		cp "$FINAL/bin/etcd" "$root/usr/local/bin/etcd"
		put_suite_image Etcd '"Cmd":["etcd"]' "$(put_layer "$layout" "$root")"
	fi

	# It says as whom it runs: its file has the bit that may be forbidden.
	root=$WORK/suite-nnp
	mkdir -p "$root/usr/local/bin"
	(cd "$images/nonewprivs" && CGO_ENABLED=0 GO111MODULE=off go build -ldflags '-s -w' -o "$root/usr/local/bin/nnp" nnp.go)
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
	# Before 1.36 the tests' web server is Apache: they ask for a page, and look where it is.
	for image in Nginx NginxNew Httpd HttpdNew; do
		put_suite_image "$image" '"Cmd":["nginx","-g","daemon off;"]' "$shell" "$layer"
	done
	finish_layout "$layout" "$out/conformance.tar"
}

# busybox's shell, with whose words the tests compare; but bash where there is a variable such as data-1, which tests hand
# down, too, and which only bash passes on.
suite_sh() {
	mkdir -p "$1/bin"
	gcc -static -Os -s -x c -o "$1/bin/sh" - <<-'END'
		#include <ctype.h>
		#include <unistd.h>
		extern char **environ;
		int main(int count, char **words) {
			for (char **variable = environ; *variable; variable++)
				for (char *c = *variable; *c && *c != '='; c++)
					if (!isalnum((unsigned char)*c) && *c != '_')
						return execv("/usr/bin/bash", words);
			return execv("/bin/busybox", words);
		}
	END
}

# An image of the suite's, unless this version has none of that name.
put_suite_image() {
	local name
	name=$(suite_image "$manifest" "$1")
	shift
	[[ -z $name ]] || put_image "$layout" "$name" "$@"
}

# Debian's nginx, with its pages where upstream's images have theirs.
nginx_files() {
	local root=$1
	mkdir -p "$root"/etc/nginx "$root"/usr/share/nginx/html "$root"/var/{cache,log}/nginx "$root"/var/lib/nginx "$root"/run
	mkdir -p "$root/usr/local/apache2"
	ln -s ../../share/nginx/html "$root/usr/local/apache2/htdocs"
	copy_programs "$root" "$(command -v nginx)"
	echo '<!DOCTYPE html><title>Welcome to nginx!</title><h1>Welcome to nginx!</h1><p>It works!</p>' >"$root/usr/share/nginx/html/index.html"
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
