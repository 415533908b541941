# shellcheck shell=bash disable=SC2154 # the variables that this file expects are the including script's
# Speaks to one image registry (OCI distribution API) with curl. Sourced by build-image.sh and clean-images.sh.
#
# Expects: $work, a private folder; $repository, host/path; $insecure, true or false; REGISTRY_USERNAME and
# REGISTRY_PASSWORD in the environment, or neither. After a call $status holds the HTTP status (000: no connection),
# $work/headers and $work/body the answer.

manifest_types="application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"

# Writes curl's configuration, which holds the password and so never goes on a command line.
registry_configure() {
  local host=${repository%%/*}
  registry_url="https://$host/v2"
  (
    umask 077
    printf 'silent\nconnect-timeout = 5\nmax-time = 60\n' >"$work/curl.conf"
    if [ "$insecure" = true ]; then printf 'insecure\n' >>"$work/curl.conf"; fi
    : >"$work/login.conf"
    if [ -n "${REGISTRY_USERNAME:-}" ]; then
      local user=${REGISTRY_USERNAME}:${REGISTRY_PASSWORD:-}
      user=${user//\\/\\\\}
      printf 'user = "%s"\n' "${user//\"/\\\"}" >"$work/login.conf"
    fi
  )
  if [ "$insecure" = true ]; then
    # Plain HTTP only where config allows it, and only if the host does not speak TLS.
    status=$(curl --config "$work/curl.conf" --output /dev/null --write-out '%{http_code}' "$registry_url/" || true)
    if [ "$status" = 000 ]; then registry_url="http://$host/v2"; fi
  fi
}

# registry METHOD PATH [curl options]: one request below /v2/, with the token exchange of the distribution spec if asked for.
registry() {
  local method=$1 path=$2
  shift 2
  registry_once "$method" "$path" --config "$work/login.conf" "$@"
  if [ "$status" = 401 ] && registry_token; then
    registry_once "$method" "$path" --config "$work/token.conf" "$@"
  fi
}

registry_once() {
  local method=$1 path=$2
  shift 2
  local how=(--request "$method")
  if [ "$method" = HEAD ]; then how=(--head); fi
  status=$(curl --config "$work/curl.conf" "${how[@]}" --dump-header "$work/headers" --output "$work/body" --write-out '%{http_code}' "$@" "$registry_url/$path" || true)
}

# Turns a "WWW-Authenticate: Bearer" answer into $work/token.conf. Fails where the registry asks for something else.
registry_token() {
  local challenge realm query=() key value
  challenge=$(sed -n 's/^[Ww][Ww][Ww]-[Aa]uthenticate: *[Bb]earer *//p' "$work/headers" | tr -d '\r' | tail -n 1)
  realm=$(printf '%s' "$challenge" | sed -n 's/.*realm="\([^"]*\)".*/\1/p')
  if [ -z "$realm" ]; then return 1; fi
  for key in service scope; do
    value=$(printf '%s' "$challenge" | sed -n "s/.*$key=\"\([^\"]*\)\".*/\1/p")
    if [ -n "$value" ]; then query+=(--data-urlencode "$key=$value"); fi
  done
  curl --config "$work/curl.conf" --config "$work/login.conf" --get "${query[@]+"${query[@]}"}" --output "$work/token.json" "$realm" || return 1
  (
    umask 077
    sed -n 's/.*"\(access_\)\{0,1\}token" *: *"\([^"]*\)".*/header = "Authorization: Bearer \2"/p' "$work/token.json" >"$work/token.conf"
  )
  rm -f "$work/token.json"
  [ -s "$work/token.conf" ]
}

# A header of the last answer.
registry_header() {
  tr -d '\r' <"$work/headers" | awk -v name="$1:" 'tolower($1) == name { value = $2 } END { print value }'
}

# registry_digest TAG-OR-DIGEST: the manifest's digest, or nothing if there is none. Fails if it cannot be found out.
registry_digest() {
  registry HEAD "${repository#*/}/manifests/$1" --header "Accept: $manifest_types"
  case $status in
    200) registry_header docker-content-digest ;;
    404) ;;
    *) return 1 ;;
  esac
}

# registry_tag DIGEST TAG: gives a manifest that is there one more tag. The bytes are the same, so the digest is too.
registry_tag() {
  registry GET "${repository#*/}/manifests/$1" --header "Accept: $manifest_types"
  if [ "$status" != 200 ]; then return 1; fi
  local type
  type=$(registry_header content-type)
  mv "$work/body" "$work/manifest"
  registry PUT "${repository#*/}/manifests/$2" --header "Content-Type: $type" --data-binary "@$work/manifest"
  [ "$status" = 201 ]
}
