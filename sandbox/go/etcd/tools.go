//go:build tools

// Package tools pins the etcd programs that the sandbox builds.
package tools

import (
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/server/v3"
)
