#!/bin/bash
# etcd 3.7.3 (Go module go.etcd.io/etcd/server/v3), run without hoist.
# `etcd --help` still lists the flags of v2 discovery, --discovery and --discovery-proxy, with their meaning and as "deprecated";
# the program itself does not define them any more and ends before it reads anything else. Whoever takes the list of flags
# from --help, to check a configuration before an upgrade from 3.6, lets through what 3.7 exits on.
# Output seen:
#   --discovery: listed by --help; given: exit code 2, "flag provided but not defined: -discovery"
#   --discovery-proxy: listed by --help; given: exit code 2, "flag provided but not defined: -discovery-proxy"
#   --discovery-token: listed by --help; given with --help: taken
# Exits 0 if it is still so, 1 if it has changed, 2 if it cannot be tried.
set -u
V=${V:-v3.7.3}
D=$(mktemp -d)
trap 'rm -rf "$D"' EXIT
cd "$D" || exit 2
cat >main.go <<'GO'
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
GO
printf 'module finding.test/etcd\n\ngo 1.26.0\n\nrequire go.etcd.io/etcd/server/v3 %s\n' "$V" >go.mod
{ timeout 600 go mod tidy && CGO_ENABLED=0 timeout 900 go build -trimpath -o etcd .; } >build.log 2>&1 || {
	tail -5 build.log
	exit 2
}
timeout 20 ./etcd --help >help 2>&1
listed() { grep -qE -- "^ *--$1( |$)" help && echo listed || echo "not listed"; }
same=0
for flag in discovery discovery-proxy; do
	said=$(timeout 20 ./etcd "--$flag=x" --data-dir "$D/data" 2>&1)
	code=$?
	said=$(grep -o 'flag provided but not defined: .*' <<<"$said" | head -1)
	echo "--$flag: $(listed "$flag") by --help; given: exit code $code, \"$said\""
	[ "$(listed "$flag")" = listed ] && [ "$code" -ne 0 ] && [ -n "$said" ] || same=1
done
timeout 20 ./etcd --discovery-token=x --help >/dev/null 2>&1 && taken=taken || taken=refused
echo "--discovery-token: $(listed discovery-token) by --help; given with --help: $taken"
[ "$taken" = taken ] || same=1
[ "$same" -eq 0 ] || echo "this has changed"
exit "$same"
