//go:build tools

// Package tools pins the linter of .github/workflows; `go run` builds it once and caches it.
package tools

import _ "github.com/rhysd/actionlint/cmd/actionlint"
