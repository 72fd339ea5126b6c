//go:build tools

// Package flannel pins flanneld.
package flannel

import _ "github.com/flannel-io/flannel"
