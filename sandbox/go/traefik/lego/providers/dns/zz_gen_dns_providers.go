// Package dns knows no DNS provider: some of their SDKs are not to be had as Go modules, and all of them would be most of the build.
package dns

import (
	"fmt"

	"github.com/go-acme/lego/v5/challenge"
)

// NewDNSChallengeProviderByName finds none.
func NewDNSChallengeProviderByName(name string) (challenge.Provider, error) {
	return nil, fmt.Errorf("this Traefik is built without DNS providers, such as %s", name)
}
