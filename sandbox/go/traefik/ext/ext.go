// Package ext is what Traefik's own go.mod takes from a folder of its repository: room for further fields, of which there are none.
package ext

// HTTP has no further fields.
type HTTP struct{}

// Router has no further fields.
type Router struct{}
