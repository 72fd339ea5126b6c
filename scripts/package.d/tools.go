//go:build tools

// Package packages pins nfpm, by which scripts/package makes the .deb and the .rpm.
package packages

import _ "github.com/goreleaser/nfpm/v2/cmd/nfpm"
