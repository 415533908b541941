//go:build tools

// Package tools pins BuildKit, its client and buildx, with which the tests build images as Docker does.
package tools

import (
	_ "github.com/docker/buildx/cmd/buildx"
	_ "github.com/moby/buildkit/cmd/buildctl"
	_ "github.com/moby/buildkit/cmd/buildkitd"
)
