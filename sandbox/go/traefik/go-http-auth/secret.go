package auth

import "net/http"

// CheckSecret says whether a password is that of a line of htpasswd.
func CheckSecret(password, secret string) bool {
	asked := &http.Request{Header: http.Header{}}
	asked.SetBasicAuth("-", password)
	return NewBasicAuthenticator("", func(string, string) string { return secret }).CheckAuth(asked) != ""
}

// RequireAuthStale asks for a login again.
func (a *DigestAuth) RequireAuthStale(w http.ResponseWriter, r *http.Request) {
	a.RequireAuth(w, r)
}
