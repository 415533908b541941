//go:build tools

// Package tools pins the program that starts the containers of the sandbox's nodes.
package tools

import _ "github.com/opencontainers/runc"
