//go:build tools

// Package tools pins the backup program of the sandbox's restic image.
package tools

import _ "github.com/restic/restic/cmd/restic"
