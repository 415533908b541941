//go:build tools

// Package tools pins kwok, which plays the kubelets of nodes that run nothing.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
