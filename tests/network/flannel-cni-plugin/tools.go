//go:build tools

// Package plugin pins the CNI plugin flannel, as it was when it was among the reference plugins.
package plugin

import _ "github.com/containernetworking/plugins/plugins/meta/flannel"
