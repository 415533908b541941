//go:build tools

// Package tools pins the image registry that the sandbox runs.
package tools

import _ "github.com/distribution/distribution/v3/cmd/registry"
