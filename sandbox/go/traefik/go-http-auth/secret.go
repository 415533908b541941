package auth

import (
	"net/http"
	"strings"
)

// CheckSecret says whether a password is that of a line of htpasswd.
func CheckSecret(password, secret string) bool {
	compare := compareFuncs[0].compare
	for _, each := range compareFuncs[1:] {
		if strings.HasPrefix(secret, each.prefix) {
			compare = each.compare
		}
	}
	return compare([]byte(secret), []byte(password)) == nil
}

// RequireAuthStale asks for a login again.
func (a *DigestAuth) RequireAuthStale(w http.ResponseWriter, r *http.Request) {
	a.RequireAuth(w, r)
}
