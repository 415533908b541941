//go:build tools

// Package tools pins syft, which lists what is in an image.
package tools

import _ "github.com/anchore/syft/cmd/syft"
