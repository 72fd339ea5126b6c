//go:build tools

// Package tools names what is built of this module.
package tools

import (
	_ "github.com/traefik/traefik/v3/cmd/traefik"
)
