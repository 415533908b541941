//go:build tools

// Package tools pins the Traefik that the sandbox builds.
package tools

import _ "github.com/traefik/traefik/v3/cmd/traefik"
