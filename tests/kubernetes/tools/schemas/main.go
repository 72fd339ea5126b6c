// Command schemas writes what scripts/known-schemas makes assets/schemas of.
//
//	schemas api DIR     the types of the API, from the OpenAPI documents of k8s.io/kubernetes in DIR
//	schemas config      the types of the kubelet's and kube-proxy's configurations, from the Go types themselves
//	schemas merge       standard input, whose lines have a minor version in front, as one list for all versions
//
// A line is one of
//
//	kind GROUP/VERSION KIND TYPE
//	type TYPE
//	field TYPE NAME VALUE [required] [set] [keys=NAME,NAME:DEFAULT]
//
// VALUE is the name of a type (it has a dot), `[]` or `{}` with a value behind it for a list or a map, or a scalar:
// string, bytes, bool, int32, int64, number, quantity, int-or-string, time, duration; `any` is anything, `object` any map.
// A `!` behind it says that null is refused.
package main

import (
	"fmt"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "api":
		err = api(os.Args[2])
	case len(os.Args) == 2 && os.Args[1] == "config":
		err = config()
	case len(os.Args) == 2 && os.Args[1] == "merge":
		err = merge(os.Stdin)
	default:
		err = fmt.Errorf("usage: schemas api DIR | schemas config | schemas merge")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
