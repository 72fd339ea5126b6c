#!/bin/bash
# sigs.k8s.io/yaml v1.6.0 (by which kubectl reads manifests) and go.yaml.in/yaml/v3 v3.0.4 (Go modules), run without hoist.
# A merge key (`<<`) brings the fields of an anchor, and a field that stands beside it keeps its own value: so YAML's
# merge type says, wherever in the mapping the key stands. The two readers differ when the key stands behind the field.
# Output seen, for `name: own` before and behind `<<: *base`, whose name is `base`:
#   key behind the field: sigs.k8s.io/yaml reads base, yaml v3 reads own
#   key before the field: sigs.k8s.io/yaml reads own, yaml v3 reads own
# Exits 0 if it is still so, 1 if it has changed, 2 if it cannot be tried.
set -u
D=$(mktemp -d)
trap 'rm -rf "$D"' EXIT
cd "$D" || exit 2
cat >main.go <<'GO'
package main

import (
	"fmt"

	v3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

func main() {
	for _, of := range [][2]string{
		{"behind", "base: &base {name: base}\nown:\n  name: own\n  <<: *base\n"},
		{"before", "base: &base {name: base}\nown:\n  <<: *base\n  name: own\n"},
	} {
		var k8s, three map[string]map[string]string
		if err := yaml.Unmarshal([]byte(of[1]), &k8s); err != nil {
			panic(err)
		}
		if err := v3.Unmarshal([]byte(of[1]), &three); err != nil {
			panic(err)
		}
		fmt.Printf("key %s the field: sigs.k8s.io/yaml reads %s, yaml v3 reads %s\n", of[0], k8s["own"]["name"], three["own"]["name"])
	}
}
GO
cat >go.mod <<'MOD'
module finding.test/merge

go 1.26.0

require (
	go.yaml.in/yaml/v3 v3.0.4
	sigs.k8s.io/yaml v1.6.0
)
MOD
{ timeout 600 go mod tidy && CGO_ENABLED=0 timeout 600 go build -trimpath -o merge .; } >build.log 2>&1 || {
	tail -5 build.log
	exit 2
}
said=$(timeout 20 ./merge 2>&1)
echo "$said"
[[ $said == "key behind the field: sigs.k8s.io/yaml reads base, yaml v3 reads own
key before the field: sigs.k8s.io/yaml reads own, yaml v3 reads own" ]] && exit 0
echo "this has changed"
exit 1
