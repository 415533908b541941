# shellcheck shell=bash disable=SC2154 # the variables that this file expects are the including script's
# Speaks to one image registry (OCI distribution API) with curl. Sourced by build-image.sh and clean-images.sh.
#
# Expects: $work, a private folder, with ca/ca.crt where further certificates are trusted; $repository, host/path; $insecure, true or
# false; $in_cluster, true where the host is a Service of the cluster, SERVICE.NAMESPACE.svc:PORT, of $kube_context;
# REGISTRY_USERNAME and REGISTRY_PASSWORD in the environment, or neither. Whoever sources it sets $forward to nothing, and
# at its own end stops the process of that number; one that is killed outright takes it along. After a call $work/status holds the HTTP status (000: no connection),
# $work/trouble curl's words, $work/headers and $work/body the answer; $registry_url is the registry's address with its scheme.

manifest_types="application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json"

# The API server is reached as preview reaches it, whatever proxy stands before registries.
kubectl_direct=(kubectl)
if [ -n "${HTTPS_PROXY:-}${https_proxy:-}" ]; then kubectl_direct=(env 'NO_PROXY=*' 'no_proxy=*' kubectl); fi

# Reaches a Service of the cluster through the API server, by a free port of this machine, and takes the token for pushes from
# the Secret beside it. Where it cannot, requests fail. Its end is read off a pipe that this script and what it starts hold.
registry_forward() {
  local kubectl=("${kubectl_direct[@]}" --request-timeout 30s) service port="" in_namespace tries=0
  if [ -n "$kube_context" ]; then kubectl+=(--context "$kube_context"); fi
  registry_url=http://127.0.0.1:9/v2
  IFS=. read -r service in_namespace _ <<<"${repository%%/*}"
  port=${repository%%/*} port=${port##*:}
  kubectl+=(--namespace "$in_namespace")
  (umask 077 && "${kubectl[@]}" get secret "$service-push" --output 'go-template={{.data.token | base64decode}}' >"$work/push-token" 2>"$work/forward") || return 0
  (umask 077 && sed 's/.*/header = "Authorization: Bearer &"/' "$work/push-token" >"$work/login.conf")
  "${kubectl[@]}" --request-timeout 0 port-forward --address 127.0.0.1 --pod-running-timeout 10s "service/$service" ":$port" >"$work/forward" 2>&1 9>&- &
  forward=$!
  exec 9> >(exec >/dev/null 2>&1 && cat && kill "$forward")
  until port=$(sed -n 's/^Forwarding from 127.0.0.1:\([0-9]*\) .*/\1/p' "$work/forward") && [ -n "$port" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 400 ] || ! kill -0 "$forward" 2>/dev/null; then return; fi
    sleep 0.05
  done
  registry_url=http://127.0.0.1:$port/v2
}

# Writes curl's configuration, which holds the password and so never goes on a command line.
registry_configure() {
  local host=${repository%%/*}
  # The way into a cluster is found once; its registry stays the same from one repository to the next.
  if [ "$in_cluster" = true ] && [ -n "$forward" ]; then return; fi
  registry_url="https://$host/v2"
  (
    umask 077
    # Again on 429 and 5xx, as the registry asks for it, but not for long.
    printf 'silent\nconnect-timeout = 5\nmax-time = 60\nretry = 2\nretry-max-time = 10\n' >"$work/curl.conf"
    if [ "$insecure" = true ]; then printf 'insecure\n' >>"$work/curl.conf"; fi
    if [ -f "$work/ca/ca.crt" ]; then
      registry_roots | cat - "$work/ca/ca.crt" >"$work/roots.crt"
      printf 'cacert = "%s"\n' "$work/roots.crt" >>"$work/curl.conf"
    fi
    if [ "$in_cluster" = true ]; then printf 'noproxy = "127.0.0.1"\n' >>"$work/curl.conf"; fi
    : >"$work/login.conf"
    if [ -n "${REGISTRY_USERNAME:-}" ]; then
      local user=${REGISTRY_USERNAME}:${REGISTRY_PASSWORD:-}
      user=${user//\\/\\\\}
      printf 'user = "%s"\n' "${user//\"/\\\"}" >"$work/login.conf"
    fi
  )
  if [ "$in_cluster" = true ]; then
    registry_forward
  elif [ "$insecure" = true ]; then
    # Plain HTTP only where config allows it, and only if the host does not speak TLS.
    status=$(curl --config "$work/curl.conf" --output /dev/null --write-out '%{http_code}' "$registry_url/" || true)
    if [ "$status" = 000 ]; then registry_url="http://$host/v2"; fi
  fi
}

# Finds the way into the cluster anew: connections through an API server do not last for ever.
registry_reopen() {
  if [ -n "$forward" ]; then kill "$forward" 2>/dev/null || true; fi
  exec 9>&-
  forward=""
  registry_configure
}

# What this machine trusts, as curl would have it: a bundle that is named takes its place instead of joining it.
registry_roots() {
  local roots
  for roots in "${CURL_CA_BUNDLE:-}" "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/ca-bundle.pem /etc/ssl/cert.pem; do
    if [ -n "$roots" ] && [ -r "$roots" ]; then
      cat "$roots"
      echo
      return
    fi
  done
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
  status=$(curl --config "$work/curl.conf" --show-error "${how[@]}" --dump-header "$work/headers" --output "$work/body" --write-out '%{http_code}' "$@" "$registry_url/$path" 2>"$work/trouble" || true)
  echo "$status" >"$work/status"
}

# The status of the last request, also after a call in a subshell.
registry_status() { cat "$work/status"; }

# The last answer for a message: its status, or curl's words on why there is none, without the login that an address may hold.
registry_answer() {
  local words=""
  if [ "$(registry_status)" = 000 ]; then words=$(sed -n 's|://[^ ]*@|://|g; /^curl: /p' "$work/trouble" | tail -n 1); fi
  printf '%s' "${words:-status $(registry_status)}"
}

# Turns a "WWW-Authenticate: Bearer" answer into $work/token.conf. Fails where the registry asks for something else.
registry_token() {
  local challenge realm query=() key value
  challenge=$(sed -n 's/^[Ww][Ww][Ww]-[Aa]uthenticate: *[Bb]earer *//p' "$work/headers" | tr -d '\r' | tail -n 1)
  realm=$(printf '%s' "$challenge" | sed -n 's/.*realm="\([^"]*\)".*/\1/p')
  # The log-in goes there: over TLS, unless config allows otherwise.
  case $realm in
    https://*) ;;
    http://*) if [ "$insecure" != true ]; then return 1; fi ;;
    *) return 1 ;;
  esac
  for key in service scope; do
    value=$(printf '%s' "$challenge" | sed -n "s/.*$key=\"\([^\"]*\)\".*/\1/p")
    if [ -n "$value" ]; then query+=(--data-urlencode "$key=$value"); fi
  done
  curl --config "$work/curl.conf" --config "$work/login.conf" --get "${query[@]+"${query[@]}"}" --output "$work/token.json" --url "$realm" || return 1
  (
    umask 077
    # Some registries give one of the two names an empty value.
    { grep -Eo '"(access_)?token" *: *"[^"]+"' "$work/token.json" || true; } | sed -n '1s/.*: *"\(.*\)"$/header = "Authorization: Bearer \1"/p' >"$work/token.conf"
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

# All tags of the repository, one per line; none if there is no such repository. Fails if it cannot be found out.
registry_tags() {
  local path="${repository#*/}/tags/list?n=1000" next
  while [ -n "$path" ]; do
    registry GET "$path"
    case $status in
      200) ;;
      404) return 0 ;;
      *) return 1 ;;
    esac
    { cat "$work/body" && echo; } | sed -n 's/.*"tags" *: *\[\([^]]*\)\].*/\1/p' | tr -d '" ' | tr ',' '\n' | sed '/^$/d'
    next=$(tr -d '\r' <"$work/headers" | sed -n 's/^[Ll]ink: *<\([^>]*\)>.*rel="next".*/\1/p')
    path=${next#*/v2/}
  done
}

# Deletes a manifest and so every tag on it. The registry frees the space with its own garbage collection.
registry_delete() {
  registry DELETE "${repository#*/}/manifests/$1"
  case $status in
    200 | 202 | 404) ;;
    *) return 1 ;;
  esac
}

# registry_blob FILE: uploads a blob unless it is there, and prints its digest.
registry_blob() {
  local digest location
  digest=sha256:$(sha256 <"$1")
  registry HEAD "${repository#*/}/blobs/$digest"
  if [ "$status" != 200 ]; then
    registry POST "${repository#*/}/blobs/uploads/" --header "Content-Length: 0"
    if [ "$status" != 202 ]; then return 1; fi
    location=$(registry_header location)
    case $location in
      *\?*) location="$location&digest=$digest" ;;
      *) location="$location?digest=$digest" ;;
    esac
    # As a stream, and once: what has been begun cannot be begun again at the same place.
    registry PUT "${location#*/v2/}" --header "Content-Type: application/octet-stream" --upload-file "$1" --max-time 3600 --retry 0
    if [ "$status" != 201 ]; then return 1; fi
  fi
  echo "$digest"
}

# The digests that a manifest, an index of manifests or an OCI layout's index.json names.
registry_named() { grep -Eo '"digest" *: *"sha256:[0-9a-f]{64}"' "$1" | grep -Eo 'sha256:[0-9a-f]{64}'; }

# registry_push_layout FOLDER TAG...: uploads the image of an OCI layout: first what a manifest names, last the manifest by each tag.
registry_push_layout() {
  local folder=$1
  shift
  registry_push_manifest "$(registry_named "$folder/index.json" | head -n 1)" "$@"
}

registry_push_manifest() {
  local digest=$1 type=manifest named target
  local file=$folder/blobs/${digest/://}
  shift
  if grep -q '"manifests" *:' "$file"; then type=index; fi
  for named in $(registry_named "$file"); do
    if [ "$type" = index ]; then registry_push_manifest "$named" || return 1; else registry_blob "$folder/blobs/${named/://}" >/dev/null || registry_refused "$named" || return 1; fi
  done
  for target in "$digest" "$@"; do
    registry PUT "${repository#*/}/manifests/$target" --header "Content-Type: application/vnd.oci.image.$type.v1+json" --data-binary "@$file"
    if [ "$status" != 201 ]; then registry_refused "$target" || return 1; fi
  done
}

registry_refused() {
  echo "the registry did not take ${repository#*/} $1: status $(registry_status)$(head -c 300 "$work/body" 2>/dev/null | sed 's/^/ /')" >&2
  return 1
}

# registry_attach DIGEST TYPE FILE: stores a file as an OCI artifact that refers to an image. A registry without the referrers
# API (before OCI 1.1) gets the index that the specification names for it, under the tag sha256-<digest>.
registry_attach() {
  local config layer subject artifact
  registry GET "${repository#*/}/manifests/$1" --header "Accept: $manifest_types"
  if [ "$status" != 200 ]; then return 1; fi
  subject="{\"mediaType\":\"$(registry_header content-type)\",\"digest\":\"$1\",\"size\":$(($(wc -c <"$work/body")))}"
  printf '{}' >"$work/empty"
  config=$(registry_blob "$work/empty") || return 1
  layer=$(registry_blob "$3") || return 1
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"%s","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"%s","size":2},"layers":[{"mediaType":"%s","digest":"%s","size":%d}],"subject":%s}' \
    "$2" "$config" "$2" "$layer" "$(($(wc -c <"$3")))" "$subject" >"$work/artifact"
  artifact=sha256:$(sha256 <"$work/artifact")
  registry PUT "${repository#*/}/manifests/$artifact" --header "Content-Type: application/vnd.oci.image.manifest.v1+json" --data-binary "@$work/artifact"
  if [ "$status" != 201 ]; then return 1; fi
  if [ -n "$(registry_header oci-subject)" ]; then return 0; fi
  printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"%s","digest":"%s","size":%d}]}' \
    "$2" "$artifact" "$(($(wc -c <"$work/artifact")))" >"$work/index"
  registry PUT "${repository#*/}/manifests/${1/:/-}" --header "Content-Type: application/vnd.oci.image.index.v1+json" --data-binary "@$work/index"
  [ "$status" = 201 ]
}

# SHA-256 of standard input in hex, with what Linux or macOS has.
sha256() {
  if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1
}

# Deletes what registry_attach stored beside an image where the registry does not do so by itself.
registry_delete_attached() {
  local index artifact
  index=$(registry_digest "${1/:/-}") || return 0
  if [ -z "$index" ]; then return 0; fi
  registry GET "${repository#*/}/manifests/$index" --header "Accept: $manifest_types"
  for artifact in $(grep -Eo 'sha256:[0-9a-f]{64}' "$work/body") "$index"; do registry_delete "$artifact" || true; done
}
