//go:build tools

// Package tools pins the ingress-nginx controller that the sandbox builds.
package tools

import _ "k8s.io/ingress-nginx/cmd/nginx"
