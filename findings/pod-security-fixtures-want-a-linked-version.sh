#!/bin/bash
# k8s.io/pod-security-admission v0.37.2 with k8s.io/component-base v0.37.2 (Go modules), run without hoist.
# The version of pod security that a Go program asks for by api.GetAPIVersion() is not that of the module that it is built
# with: it is text that the linker puts into component-base. A program that is built plainly is v0.0, of which the same
# module has no fixture. Kubernetes' own test suite of 1.37 asks that way in a conformance test (Projected PodCertificate,
# mTLS), which fails on every cluster if the suite was built by `go test -c` without -X flags; of 456 tests it is the only one.
# Output seen:
#   built plainly: restricted/v0.0: no valid pod fixture found in specified or older versions for restricted/v0.0
#   built with -X gitMajor=1 -X gitMinor=37: restricted/v1.37: a pod
# Exits 0 if it is still so, 1 if it has changed, 2 if it cannot be tried.
set -u
V=${V:-v0.37.2}
D=$(mktemp -d)
trap 'rm -rf "$D"' EXIT
cd "$D" || exit 2
cat >main.go <<'GO'
package main

import (
	"fmt"

	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/test"
)

func main() {
	version := api.GetAPIVersion()
	said := "a pod"
	if _, err := test.GetMinimalValidPod(api.LevelRestricted, version); err != nil {
		said = err.Error()
	}
	fmt.Printf("%s/%s: %s\n", api.LevelRestricted, version.String(), said)
}
GO
printf 'module finding.test/podsecurity\n\ngo 1.26.0\n\nrequire k8s.io/pod-security-admission %s\n' "$V" >go.mod
minor=${V#v0.}
minor=${minor%%.*}
package=k8s.io/component-base/version
{ timeout 600 go mod tidy && CGO_ENABLED=0 timeout 900 go build -trimpath -o plain . &&
	CGO_ENABLED=0 timeout 900 go build -trimpath -ldflags "-X $package.gitMajor=1 -X $package.gitMinor=$minor" -o linked .; } >build.log 2>&1 || {
	tail -5 build.log
	exit 2
}
plain=$(timeout 20 ./plain) linked=$(timeout 20 ./linked)
echo "built plainly: $plain"
echo "built with -X gitMajor=1 -X gitMinor=$minor: $linked"
[[ $plain == "restricted/v0.0: no valid pod fixture found"* && $linked == "restricted/v1.$minor: a pod" ]] && exit 0
echo "this has changed"
exit 1
