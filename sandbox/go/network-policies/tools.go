//go:build tools

// Package tools pins kube-network-policies, which enforces NetworkPolicies beside any network plugin.
package tools

import _ "sigs.k8s.io/kube-network-policies/cmd"
