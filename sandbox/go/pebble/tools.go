//go:build tools

// Package tools pins the ACME server of the tests, and the DNS server that tells it where hosts are.
package tools

import (
	_ "github.com/letsencrypt/pebble/v2/cmd/pebble"
	_ "github.com/letsencrypt/pebble/v2/cmd/pebble-challtestsrv"
)
