#!/usr/bin/env bash
# Builds one image from a folder, pushes it, and prints its reference by digest.
# The AgentImages component runs it; people can too: see --help.
set -euo pipefail

usage() {
  cat <<'HELP'
Usage: scripts/images/build-image.sh --repository HOST/PATH/NAME --context FOLDER [options]

Builds FOLDER, pushes the image and prints HOST/PATH/NAME@sha256:... (and nothing else) on standard output.
An image whose tag is in the registry already is not built again. Every option may be given in the environment instead.

  --repository R     where to push, without tag                               IMAGE_REPOSITORY
  --context FOLDER   what is sent to the builder                              IMAGE_CONTEXT
  --name NAME        name in messages; default: the last part of R            IMAGE_NAME
  --tag TAG          names the content; default NAME-by-hand, always built    IMAGE_TAG
  --dockerfile FILE  inside FOLDER; default Dockerfile                        IMAGE_DOCKERFILE
  --arg KEY=VALUE    build argument, repeatable (environment: one per line)   IMAGE_ARGS
  --builder B        buildah (default), buildx or in-cluster                  IMAGE_BUILDER
  --platforms LIST   such as linux/amd64,linux/arm64; default: the builder's  IMAGE_PLATFORMS
  --cache C          a folder, or "registry" for R-cache                      IMAGE_CACHE
  --stack NAME       also tag NAME-<time>, which clean-images.sh goes by      IMAGE_STACK
  --sbom FOLDER      write <tag>.spdx.json there, and beside R (needs syft)   IMAGE_SBOM
  --insecure         R's host may use plain HTTP or an unverified certificate REGISTRY_INSECURE=true
  --ca FILE          PEM certificates to trust beside this machine's own;     REGISTRY_CA
                     - for standard input
  --pulled-from HOST R's host is a Service of the cluster, SERVICE.NAMESPACE.svc:PORT, reached with kubectl;
                     what is printed has HOST in its place                    REGISTRY_PULLED_FROM
  --namespace N      in-cluster: where the BuildKit job runs                  BUILDKIT_NAMESPACE
  --buildkit-image I in-cluster: BuildKit, rootless if its tag ends so        BUILDKIT_IMAGE
  --kube-context C   kubectl's context, default the current one               BUILDKIT_CONTEXT
  --force            build even if the tag is in the registry
  --inspect          build nothing; print present, missing or unknown
  --resolve IMAGE    build nothing; print the digest that IMAGE's tag has in its registry
  --delete           build nothing; delete the image, unless another stack's tag is on it
  --dry-run          change nothing; print the commands that would run
  --verbose          show the builder's whole log, not only its end on failure
  --help             this text

Environment only:
  REGISTRY_USERNAME, REGISTRY_PASSWORD  log-in for R's host (else the builder's own log-ins are used)
  REGISTRY_LOGINS                       log-ins for other hosts, of base images: one HOST BASE64(USER:PASSWORD) per line; then
                                        they and the one above are all that the builder knows
  IMAGE_MIRRORS                         mirrors of registries, one HOST=MIRROR per line, for the base images that a Dockerfile
                                        names itself: of buildah and in-cluster (buildx: in the builder's own configuration)
  BUILD_IMAGE_STORAGE                   buildah: storage folder, default buildah's own
  BUILDAH_ISOLATION                     buildah: default chroot, which needs no privileges of a container runtime
  BUILDX_BUILDER                        buildx: which builder, default the current one; it needs BuildKit's own image
                                        exporter (driver docker-container, kubernetes or remote)
  BUILDKITD_CONFIG                      in-cluster: a file with further lines for buildkitd.toml, such as of base images' registries
  KUBECONFIG                            in-cluster and --pulled-from: as kubectl reads it
  HTTP_PROXY, HTTPS_PROXY, NO_PROXY     the proxy, in both spellings: for registries, and for commands of the Dockerfile

Exit: 0 done, 1 failed (nothing was tagged), 2 bad input.
HELP
}

name=${IMAGE_NAME:-} repository=${IMAGE_REPOSITORY:-} context=${IMAGE_CONTEXT:-} tag=${IMAGE_TAG:-}
dockerfile=${IMAGE_DOCKERFILE:-Dockerfile} builder=${IMAGE_BUILDER:-buildah} platforms=${IMAGE_PLATFORMS:-}
cache=${IMAGE_CACHE:-} stack=${IMAGE_STACK:-} sbom=${IMAGE_SBOM:-} insecure=${REGISTRY_INSECURE:-false}
ca=${REGISTRY_CA:-}
pulled_from=${REGISTRY_PULLED_FROM:-}
# The state of a stack knows no operator's home directory.
case ${KUBECONFIG:-} in \~/*) export KUBECONFIG=$HOME/${KUBECONFIG#??} ;; esac
namespace=${BUILDKIT_NAMESPACE:-} buildkit_image=${BUILDKIT_IMAGE:-} kube_context=${BUILDKIT_CONTEXT:-}
action=build image="" force=false dry_run=false verbose=false
build_args=()
while IFS= read -r line; do
  if [ -n "$line" ]; then build_args+=("$line"); fi
done <<<"${IMAGE_ARGS:-}"

say() { printf '%s: %s\n' "${name:-build-image}" "$*" >&2; }
bad_input() {
  say "$*"
  exit 2
}
fail() {
  say "$*"
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    --repository | --context | --name | --tag | --dockerfile | --arg | --builder | --platforms | --cache | --stack | --sbom | --ca | --pulled-from | --namespace | --buildkit-image | --kube-context)
      if [ $# -lt 2 ]; then bad_input "$1 needs a value; see --help"; fi
      case $1 in
        --repository) repository=$2 ;;
        --context) context=$2 ;;
        --name) name=$2 ;;
        --tag) tag=$2 ;;
        --dockerfile) dockerfile=$2 ;;
        --arg) build_args+=("$2") ;;
        --builder) builder=$2 ;;
        --platforms) platforms=$2 ;;
        --cache) cache=$2 ;;
        --stack) stack=$2 ;;
        --sbom) sbom=$2 ;;
        --ca) ca=$2 ;;
        --pulled-from) pulled_from=$2 ;;
        --namespace) namespace=$2 ;;
        --buildkit-image) buildkit_image=$2 ;;
        --kube-context) kube_context=$2 ;;
      esac
      shift 2
      ;;
    --insecure) insecure=true && shift ;;
    --force) force=true && shift ;;
    --inspect) action=inspect && shift ;;
    --resolve)
      if [ $# -lt 2 ]; then bad_input "$1 needs a value; see --help"; fi
      action=resolve image=$2
      shift 2
      ;;
    --delete) action=delete && shift ;;
    --dry-run) dry_run=true && shift ;;
    --verbose) verbose=true && shift ;;
    --help | -h) usage && exit 0 ;;
    *) bad_input "unknown option $1; see --help" ;;
  esac
done

if [ "$action" = resolve ]; then
  # host/path:tag, with Docker Hub's short forms. What config says of R's host holds for that host only.
  host=${repository%%/*}
  tag=latest
  case ${image##*/} in *:*) tag=${image##*:} image=${image%:*} ;; esac
  case ${image%%/*} in
    *.* | *:* | localhost) ;;
    *) image=docker.io/$image ;;
  esac
  if [ "${image%%/*}" != "$host" ]; then
    insecure=false pulled_from=""
    unset REGISTRY_USERNAME REGISTRY_PASSWORD
    login=$(awk -v host="${image%%/*}" '$1 == host { print $2 }' <<<"${REGISTRY_LOGINS:-}" | base64 -d)
    if [ -n "$login" ]; then REGISTRY_USERNAME=${login%%:*} REGISTRY_PASSWORD=${login#*:}; fi
    unset login
  fi
  case $image in
    docker.io/*/*) image=registry-1.$image ;;
    docker.io/*) image=registry-1.docker.io/library/${image#*/} ;;
  esac
  repository=$image
fi
name=${name:-${repository##*/}}
case $repository in
  */*) ;;
  *) bad_input "\"$repository\" is no repository; give --repository HOST/PATH/NAME, for example registry.example.org/build-platform/maven-dind" ;;
esac
if ! printf '%s' "$repository" | grep -Eq '^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:[0-9]+)?(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)+$'; then
  bad_input "\"$repository\" is no repository name; after the host use lower-case letters and digits with single . _ - between them"
fi
if [ -n "$tag" ] && ! printf '%s' "$tag" | grep -Eq '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$'; then
  bad_input "\"$tag\" is no tag; use at most 128 letters, digits and . _ -"
fi
# It goes into file names, the BuildKit job's name and the default tag.
if ! printf '%s' "$name" | grep -Eq '^[a-z0-9]+([._-]+[a-z0-9]+)*$'; then
  bad_input "\"$name\" is no image name; use lower-case letters and digits with . _ - between them"
fi
in_cluster=false
if [ -n "$pulled_from" ]; then
  in_cluster=true
  if ! printf '%s' "${repository%%/*}" | grep -Eq '^[a-z0-9-]+\.[a-z0-9-]+\.svc:[0-9]+$'; then bad_input "\"${repository%%/*}\" is no Service of the cluster; beside --pulled-from give SERVICE.NAMESPACE.svc:PORT/PATH/NAME"; fi
  if [ "$builder" != in-cluster ] && [ "$cache" = registry ]; then bad_input "builder \"$builder\" keeps no cache in a registry in the cluster, which it does not reach; give a folder of this machine"; fi
fi
case $builder in
  buildah | buildx | in-cluster) ;;
  *) bad_input "builder \"$builder\" is unknown; use buildah, buildx or in-cluster" ;;
esac
if [ "$action" = build ]; then
  case $context in -*) context=./$context ;; esac
  if [ ! -d "$context" ]; then bad_input "there is no folder \"$context\"; give --context a folder with a Dockerfile"; fi
  case /$dockerfile/ in
    //* | */../*) bad_input "Dockerfile \"$dockerfile\" is outside the context; give a path inside $context" ;;
  esac
  if [ ! -f "$context/$dockerfile" ]; then bad_input "there is no file $context/$dockerfile; write one, or name the right one with --dockerfile"; fi
  for arg in "${build_args[@]+"${build_args[@]}"}"; do
    case $arg in
      [A-Za-z_]*=*) ;;
      *) bad_input "build argument \"$arg\" is not KEY=VALUE" ;;
    esac
  done
  if [ "$builder" = in-cluster ]; then
    if [ -z "$namespace" ] || [ -z "$buildkit_image" ]; then bad_input "the in-cluster builder needs --namespace and --buildkit-image"; fi
    if [ -n "$cache" ] && [ "$cache" != registry ]; then bad_input "the in-cluster builder keeps nothing between builds: a cache folder is of no use, set cache to registry"; fi
  fi
elif [ -z "$tag" ]; then
  bad_input "--$action needs --tag"
fi
if [ -n "$ca" ] && [ "$ca" != - ] && [ ! -r "$ca" ]; then bad_input "there is no file \"$ca\" that can be read; give --ca a file of certificates in PEM, or - for standard input"; fi
if [ -z "$tag" ]; then
  tag=$name-by-hand
  force=true
fi

# Everything temporary, the credentials included, lives in one folder that only this user can read. What a run that was
# killed outright left behind goes with the first run a day later: no build takes that long.
temporary=${TMPDIR:-/tmp}
find "$temporary" -maxdepth 1 -type d -name 'build-image.??????' -user "$(id -u)" -mtime +0 -exec rm -rf {} + 2>/dev/null || true
work=$(mktemp -d "$temporary/build-image.XXXXXX" 2>&1) || fail "no temporary folder can be made: $work; point TMPDIR at a folder that can be written to."
child="" undo=() forward=""
clean_up() {
  # The builder and what it started: a process group of its own, see run.
  if [ -n "$child" ]; then kill -- "-$child" 2>/dev/null || true; fi
  if [ -n "$forward" ]; then kill "$forward" 2>/dev/null || true; fi
  if [ ${#undo[@]} -gt 0 ]; then "${undo[@]}" >/dev/null 2>&1 || true; fi
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# shellcheck source=scripts/images/build-image-registry.sh
. "$(dirname "${BASH_SOURCE[0]}")/build-image-registry.sh"

# need PROGRAM FIX: stops if a program is not on PATH.
need() {
  if ! command -v "$1" >/dev/null; then fail "there is no $1 on PATH; $2"; fi
}

need curl "install it; the registry is asked with it."
if [ "$in_cluster" = true ] && [ "$action" = build ]; then need kubectl "install it; the registry in the cluster is reached with it."; fi

# run WHAT COMMAND...: runs one step with its output in the log; WHAT names it in messages. Prints it instead on --dry-run.
run() {
  local what=$1
  shift
  if [ "$dry_run" = true ]; then
    printf '%q ' "$@" >&2
    printf '\n' >&2
    return
  fi
  local result=0
  attempt "$@" || result=$?
  if [ "$result" != 0 ]; then gave_up "$what failed (exit $result)"; fi
}

# attempt COMMAND...: runs a command with its output in the log; its exit code.
attempt() {
  set -m
  if [ "$verbose" = true ]; then
    "$@" > >(tee -a "$work/log" >&2) 2>&1 &
  else
    "$@" >>"$work/log" 2>&1 &
  fi
  child=$!
  set +m
  local result=0
  wait "$child" || result=$?
  child=""
  return "$result"
}

# gave_up WHAT: the end of the log, and what to do.
gave_up() {
  if [ "$verbose" = false ]; then tail -n 25 "$work/log" | sed "s|^|$name: \| |" >&2; fi
  fail "$1; $(advice)"
}

limited="a registry allows no further pulls for now: give a log-in for it in pullSecrets, or a mirror of it in mirrors.registries"

# What the end of the log most likely means, as something to do.
advice() {
  local log host=${repository%%/*}
  log=$(tail -n 60 "$work/log")
  # No pipe into grep -q: it ends early, and the writer's broken pipe would count as "no".
  has() { grep -Eiq "$1" <<<"$log"; }
  # A full disk may have had no room for the log either.
  if has 'no space left on device|disk quota exceeded' || ! printf '%8192s' x 2>/dev/null >"$work/probe"; then
    echo "the disk is full: free some space (\`buildah rmi --prune\` or \`docker builder prune\`), or point BUILD_IMAGE_STORAGE and TMPDIR at a larger one."
  elif has 'building at STEP "RUN |process ".*" did not complete successfully'; then
    # Whatever its output says of log-ins or connections is the command's own affair.
    echo "a command of the Dockerfile failed: the lines above are the end of what it said; run again by hand with --verbose for all of it."
  elif has 'is not supported for the .* driver'; then
    echo "this builder hands out no images: make one that does (docker buildx create --use) or name another in BUILDX_BUILDER, or set the builder to buildah or in-cluster."
  elif has '407 Proxy Authentication|Proxy Authentication Required'; then
    echo "the proxy asks for a login: set proxy.username and proxy.password."
  elif has 'server gave HTTP response to HTTPS client'; then
    echo "a registry speaks plain HTTP: if it is $host and you trust the network to it, set registry.insecure to true (--insecure)."
  elif has 'x509|certificate'; then
    case $builder in
      buildx) echo "a registry's certificate is of an unknown issuer: set trust.caBundleFile (--ca) for this machine, and give the builder the same certificate when it is made (docker buildx create --config)." ;;
      *) echo "a registry's certificate is of an unknown issuer: set trust.caBundleFile to the certificate of the authority that signed it (--ca)." ;;
    esac
  elif has 'toomanyrequests|too many requests|status(: | code:? )?429'; then
    echo "$limited"
  elif has 'unauthorized|authentication required|denied|forbidden|status 401|status 403'; then
    if [ "$in_cluster" = true ]; then
      echo "the registry in the cluster refused the token of Secret image-registry-push: pulumi up --refresh makes both anew where they differ."
      return
    fi
    echo "a registry refused the log-in: check registry.username and registry.password for $host and that they may push to ${repository#*/}."
  elif has 'manifest unknown|manifest for .* not found|name unknown|reading manifest|: not found|building at STEP "(COPY|ADD) .*no such file'; then
    echo "an image or file that the Dockerfile names does not exist: check the build arguments (${build_args[*]+"${build_args[*]}"}) and the line above."
  elif has 'connection refused|no such host|i/o timeout|network is unreachable|no route to host|TLS handshake timeout|connection reset'; then
    echo "a registry cannot be reached: check the name $host and the network from this machine."
  else
    echo "the lines above are the end of its log; run again by hand with --verbose for all of it."
  fi
}

# Credentials file in the format all builders read; only for the hosts of log-ins that were given. A local builder never speaks
# to a registry in the cluster.
write_auth() {
  (
    umask 077
    {
      if [ "$builder" = in-cluster ]; then push_login "${repository%%/*}"; fi
      if [ -n "${REGISTRY_USERNAME:-}" ]; then printf '%s %s\n' "${repository%%/*}" "$(printf '%s:%s' "$REGISTRY_USERNAME" "${REGISTRY_PASSWORD:-}" | base64 | tr -d '\n')"; fi
      # The name under which every builder looks for Docker Hub's.
      printf '%s\n' "${REGISTRY_LOGINS:-}" | sed '/^$/d; s|^docker\.io |https://index.docker.io/v1/ |'
    } >"$work/logins"
    if [ -s "$work/logins" ]; then auth_file "$work/docker"; fi
  )
}

# push_login HOST: the log-in with the token for pushes, if there is one.
push_login() {
  if [ -s "$work/push-token" ]; then printf '%s %s registrytoken\n' "$1" "$(cat "$work/push-token")"; fi
}

# auth_file FOLDER: a credentials file of $work/logins.
auth_file() {
  mkdir -p "$1"
  awk 'BEGIN { printf "{\"auths\":{" } { printf "%s\"%s\":{\"%s\":\"%s\"}", (NR > 1 ? "," : ""), $1, ($3 == "" ? "auth" : $3), $2 } END { print "}}" }' "$work/logins" >"$1/config.json"
}

# A copy of the context with the modes git knows (644, 755), so that a clone's umask does not change the image.
stage_context() {
  staged=$context
  if [ "$dry_run" = true ]; then return; fi
  staged=$work/context
  mkdir "$staged"
  : >"$work/log"
  run "copying the context" copy_context
}

copy_context() {
  local how=() file
  left_out >"$work/left-out"
  # GNU tar alone knows patterns that do not cross a slash.
  if [ -s "$work/left-out" ] && tar --version | grep -q GNU; then how=(--anchored --wildcards --no-wildcards-match-slash "--exclude-from=$work/left-out"); fi
  tar -C "$context" -cf - "${how[@]+"${how[@]}"}" . | tar -C "$staged" -xmof -
  # The builder needs these, whatever is left out.
  for file in "$dockerfile" "$dockerfile.dockerignore" .dockerignore; do
    if [ -f "$context/$file" ] && [ ! -f "$staged/$file" ]; then
      mkdir -p "$(dirname "$staged/$file")"
      rm -f "$staged/$file"
      cp "$context/$file" "$staged/$file"
    fi
  done
  chmod -R u=rwX,go=rX,ug-s,-t "$staged"
  unix_scripts
}

# Scripts with the line ends of Windows, which Linux cannot start, get its own; components/agent-images/content.ts counts them so.
unix_scripts() {
  local file
  while IFS= read -r -d '' file; do
    if [ "$(wc -c <"$file")" -gt 1048576 ] || ! head -n 1 "$file" | grep -q $'^#!.*\r$'; then continue; fi
    LC_ALL=C sed $'s/\r$//' "$file" >"$work/script"
    cat "$work/script" >"$file"
  done < <(LC_ALL=C grep -rlI --null $'^#!.*\r$' "$staged" || true)
}

# What .dockerignore leaves out, as patterns for tar, so that it is neither copied nor sent to a cluster. Only lines that mean
# the same to tar; the builder itself goes by all of them. A line that takes back (!) may need what others leave out: then none.
left_out() {
  local ignore=$context/.dockerignore
  if [ -f "$context/$dockerfile.dockerignore" ]; then ignore=$context/$dockerfile.dockerignore; fi
  if [ ! -f "$ignore" ] || grep -Eq '^[[:space:]]*!' "$ignore"; then return; fi
  tr -d '\r' <"$ignore" | sed -E -e '/^#/d; s/^[[:space:]]+//; s/[[:space:]]+$//; s|^/+||; s|/+$||; /^$/d; /\*\*/d; /[][\\]/d' -e '\#(^|/)\.{1,2}(/|$)#d' -e 's|^|./|'
}

# The image that the last stage is made from, with the build arguments filled in; nothing for scratch or another stage.
base_image() {
  local from arg value
  from=$(awk 'toupper($1) == "FROM" { for (i = 2; i <= NF; i++) if ($i !~ /^--/) { image = $i; break }
      if (image in stages) image = ""
      if (toupper($(i + 1)) == "AS") stages[$(i + 2)] = 1 }
    END { print image }' "$context/$dockerfile")
  case $from in
    "" | scratch) return ;;
    \$*)
      arg=${from#\$} arg=${arg#\{} arg=${arg%\}}
      from=$(sed -n "s/^[Aa][Rr][Gg] *$arg=\"\{0,1\}\([^\" ]*\).*/\1/p" "$context/$dockerfile" | head -n 1)
      for value in "${build_args[@]+"${build_args[@]}"}"; do
        case $value in "$arg="*) from=${value#*=} ;; esac
      done
      ;;
  esac
  # A default made of other arguments is more than a label is worth.
  case $from in *\$*) ;; *) printf '%s' "$from" ;; esac
}

# What every builder is told, besides its own options: where the image came from, under the names of the OCI annotations.
labels=()
base=""
describe() {
  labels=("org.opencontainers.image.title=$name" "org.opencontainers.image.version=$tag")
  base=$(base_image)
  if [ -n "$base" ]; then labels+=("org.opencontainers.image.base.name=$base"); fi
  case $base in *@sha256:*) labels+=("org.opencontainers.image.base.digest=${base##*@}") ;; esac
}

build_buildah() {
  need buildah "install it (Debian: apt-get install buildah), or set the builder to buildx or in-cluster."
  local buildah=(buildah) tls=(--tls-verify=true) options=() item
  if [ -n "${BUILD_IMAGE_STORAGE:-}" ]; then buildah+=(--root "$BUILD_IMAGE_STORAGE/root" --runroot "$BUILD_IMAGE_STORAGE/run"); fi
  local plain=$insecure
  if [ "$in_cluster" = true ]; then plain=false; fi
  if [ "$plain" = true ] || [ -n "${IMAGE_MIRRORS:-}" ]; then
    # Only this host, not every registry the Dockerfile names, as --tls-verify=false would; after this machine's own rules.
    local own=${CONTAINERS_REGISTRIES_CONF:-${HOME:-}/.config/containers/registries.conf}
    if [ ! -f "$own" ]; then own=/etc/containers/registries.conf; fi
    {
      if [ -f "$own" ]; then cat "$own"; fi
      if [ "$plain" = true ]; then printf '\n[[registry]]\nlocation = "%s"\ninsecure = true\n' "${repository%%/*}"; fi
      awk -F= -v insecure="$plain" -v own="${repository%%/*}" 'NF > 1 {
        split($2, host, "/")
        printf "\n[[registry]]\nlocation = \"%s\"\n[[registry.mirror]]\nlocation = \"%s\"\ninsecure = %s\n", $1, $2, (insecure == "true" && host[1] == own ? "true" : "false")
      }' <<<"${IMAGE_MIRRORS:-}"
    } >"$work/registries.conf"
    export CONTAINERS_REGISTRIES_CONF=$work/registries.conf
    if [ "$plain" = true ]; then tls=(--tls-verify=false); fi
  fi
  if [ -f "$work/docker/config.json" ]; then options+=(--authfile "$work/docker/config.json"); fi
  # Beside those that the machine trusts.
  if [ -n "$ca" ]; then options+=(--cert-dir "$work/ca"); fi
  local push=("${options[@]+"${options[@]}"}" "${tls[@]}" --digestfile "$work/digest")
  # The same content gives the same digest: --timestamp 0 sets every time in the image to 1970, and history and base
  # annotations, which name images of this machine, are left out.
  options+=(--isolation "${BUILDAH_ISOLATION:-chroot}" --format oci --timestamp 0 --identity-label=false
    --annotation org.opencontainers.image.base.name= --annotation org.opencontainers.image.base.digest= --file "$staged/$dockerfile")
  if [ -f "$staged/$dockerfile.dockerignore" ]; then options+=(--ignorefile "$staged/$dockerfile.dockerignore"); fi
  # buildah finds cached layers by their history: with a cache, the digest may tell what was in it.
  case $cache in
    "") options+=(--layers=false --omit-history) ;;
    registry) options+=(--layers --cache-from "$repository-cache" --cache-to "$repository-cache") ;;
    *)
      options+=(--layers)
      buildah=(buildah --root "$cache/root" --runroot "$cache/run")
      ;;
  esac
  for item in "${build_args[@]+"${build_args[@]}"}"; do options+=(--build-arg "$item"); done
  for item in "${labels[@]}"; do options+=(--label "$item" --annotation "$item"); done

  local local_name="localhost/build-image-$name-$$"
  if [ "${platforms#*,}" = "$platforms" ]; then
    if [ -n "$platforms" ]; then options+=(--platform "$platforms"); fi
    local image=$local_name
    if [ -z "$cache" ]; then
      # Nobody needs it once it is pushed; a name of its own, so that no other build's equal image goes. Base images stay.
      options+=(--tag "$local_name")
      if [ "$dry_run" = false ]; then undo=("${buildah[@]}" rmi "$local_name"); fi
    fi
    run build "${buildah[@]}" build "${options[@]}" --iidfile "$work/image" "$staged"
    if [ -n "$cache" ] && [ "$dry_run" = false ]; then image=$(cat "$work/image"); fi
    each_tag run push "${buildah[@]}" push --format oci "${push[@]}" "$image"
  else
    # One after the other: all at once, buildah lists them in an order of its own each time.
    for item in ${platforms//,/ }; do run build "${buildah[@]}" build "${options[@]}" --platform "$item" --manifest "$local_name" "$staged"; done
    each_tag run push "${buildah[@]}" manifest push --all --format oci "${push[@]}" "$local_name"
    run clean-up "${buildah[@]}" manifest rm "$local_name"
  fi
}

# each_tag PUSH...: runs a push of buildah once for each tag, or into an OCI layout.
each_tag() {
  local target
  if [ "$in_cluster" = true ]; then
    "$@" "oci:$work/layout:$tag"
    return
  fi
  for target in "$tag" $stack_tag; do "$@" "docker://$repository:$target"; done
}

# BuildKit's image exporter, for buildx and buildctl. The manifest goes up after all that it names, so a tag is whole or absent.
# buildx' builder may run in a container or on another machine, from which no forwarded port is reached: it hands the image back.
# rewrite-timestamp with SOURCE_DATE_EPOCH=0 does what --timestamp 0 does for buildah.
buildkit_output() {
  local names=$repository:$tag
  if [ "$in_cluster" = true ] && [ "$builder" = buildx ]; then
    printf 'type=oci,tar=false,dest=%s,oci-mediatypes=true,rewrite-timestamp=true' "$work/layout"
    return
  fi
  if [ -n "$stack_tag" ]; then names="\"name=$names,$repository:$stack_tag\""; else names="name=$names"; fi
  printf 'type=image,%s,push=true,oci-mediatypes=true,rewrite-timestamp=true%s' "$names" "$buildkit_insecure"
}

buildkit_digest() {
  sed -n 's/.*"containerimage.digest": *"\(sha256:[0-9a-f]*\)".*/\1/p' "$work/metadata.json" | head -n 1 >"$work/digest"
}

build_buildx() {
  local buildx=(docker buildx) options=() item
  if ! docker buildx version >/dev/null 2>&1; then
    buildx=(buildx)
    need buildx "install docker with its buildx plugin, or set the builder to buildah or in-cluster."
  fi
  if [ -f "$work/docker/config.json" ]; then
    # A log-in of our own must not hide the user's builders and plugins, which live in the same folder.
    local own=${DOCKER_CONFIG:-${HOME:-}/.docker}
    export BUILDX_CONFIG=${BUILDX_CONFIG:-$own/buildx} DOCKER_CONFIG=$work/docker
    for item in cli-plugins contexts; do
      if [ -d "$own/$item" ]; then ln -s "$own/$item" "$work/docker/$item"; fi
    done
  fi
  for item in "${build_args[@]+"${build_args[@]}"}" SOURCE_DATE_EPOCH=0; do options+=(--build-arg "$item"); done
  # Without a value: it comes from the environment, and neither history nor cache keeps one of these.
  for item in "${proxied[@]+"${proxied[@]}"}"; do options+=(--build-arg "$item"); done
  for item in "${labels[@]}"; do options+=(--label "$item" --annotation "$item"); done
  if [ -n "$platforms" ]; then options+=(--platform "$platforms"); fi
  case $cache in
    "") ;;
    registry) options+=(--cache-from "type=registry,ref=$repository-cache$buildkit_insecure" --cache-to "type=registry,ref=$repository-cache,mode=max$buildkit_insecure") ;;
    *) options+=(--cache-from "type=local,src=$cache/$name" --cache-to "type=local,dest=$cache/$name,mode=max") ;;
  esac
  # Provenance attestations hold the time of the build, and so would give each build a digest of its own.
  run "build or push" "${buildx[@]}" build --progress plain --provenance=false --sbom=false --file "$staged/$dockerfile" "${options[@]}" \
    --output "$(buildkit_output)" --metadata-file "$work/metadata.json" "$staged"
  if [ "$dry_run" = false ]; then buildkit_digest; fi
}

# The job in which BuildKit runs. It waits for orders and ends by itself if nobody gives any.
job_manifest() {
  local security='"privileged": true' flags="" home=/root/.local/share/buildkit affinity="" architectures
  case $buildkit_image in
    *-rootless | *-rootless@*)
      security='"runAsUser": 1000, "runAsGroup": 1000, "seccompProfile": {"type": "Unconfined"}, "appArmorProfile": {"type": "Unconfined"}'
      flags=--oci-worker-no-process-sandbox
      home=/home/user/.local/share/buildkit
      ;;
    *) home=/var/lib/buildkit ;;
  esac
  if [ -n "$platforms" ]; then
    architectures=$(printf %s "$platforms" | tr , '\n' | cut -d / -f 2 | sed 's/.*/"&"/' | paste -sd ,)
    affinity='"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ['$architectures']}]}]}}},'
  fi
  cat <<JSON
{
  "apiVersion": "batch/v1", "kind": "Job",
  "metadata": {"name": "$job", "labels": {"app.kubernetes.io/name": "image-build", "app.kubernetes.io/component": "$name"}},
  "spec": {
    "backoffLimit": 0, "activeDeadlineSeconds": 3600, "ttlSecondsAfterFinished": 60,
    "template": {
      "metadata": {"labels": {"app.kubernetes.io/name": "image-build", "app.kubernetes.io/component": "$name"}},
      "spec": {
        $affinity
        "restartPolicy": "Never", "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 1,
        "containers": [{
          "name": "buildkit", "image": "$buildkit_image",
          "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"],
          "env": [{"name": "BUILDKITD_FLAGS", "value": "$flags --config /work/buildkitd.toml"}, {"name": "DOCKER_CONFIG", "value": "/work/docker"}],
          "securityContext": {$security},
          "volumeMounts": [{"name": "work", "mountPath": "/work"}, {"name": "state", "mountPath": "$home"}]
        }],
        "volumes": [{"name": "work", "emptyDir": {"medium": "Memory"}}, {"name": "state", "emptyDir": {}}]
      }
    }
  }
}
JSON
}

# What a build in a pod is told of the network around: a file with its environment, and before the build what reads it. BuildKit and
# the commands of the Dockerfile have the proxy then; its login appears on no command line but that of the pod itself.
in_network=()
network_of_pod() {
  local item
  if [ -z "$ca" ] && [ ${#proxied[@]} -eq 0 ]; then return; fi
  {
    for item in "${proxied[@]+"${proxied[@]}"}"; do printf "%s='%s'\n" "$item" "$(printf %s "${!item}" | sed "s/'/'\\\\''/g")"; done
    # BuildKit, in Go, adds what is in folders to the one file that its image has.
    if [ -n "$ca" ]; then echo "SSL_CERT_DIR=/etc/ssl/certs:/etc/pki/tls/certs:/work/ca"; fi
  } >"$work/network.env"
  # shellcheck disable=SC2016 # for the pod's shell
  in_network=(sh -c 'set -a; . /work/network.env; set +a; for name in '"${proxied[*]+"${proxied[*]}"}"'; do eval "set -- \"\$@\" --opt \"build-arg:$name=\$$name\""; done; exec "$@"' sh)
}

# BuildKit in a pod. Context and log-in travel through "kubectl exec" into memory of that pod; the cluster stores neither.
build_in_cluster() {
  local kubectl=("${kubectl_direct[@]}" --namespace "$namespace") options=() item
  need kubectl "install it, or set the builder to buildah or buildx."
  if [ -n "$kube_context" ]; then kubectl+=(--context "$kube_context"); fi
  job="build-$(printf '%s' "$name" | tr '._' '--' | cut -c 1-40)-$(date +%s)-$$"
  job_manifest >"$work/job.json"
  for item in "${build_args[@]+"${build_args[@]}"}" SOURCE_DATE_EPOCH=0; do options+=(--opt "build-arg:$item"); done
  network_of_pod
  for item in "${labels[@]}"; do options+=(--opt "label:$item"); done
  if [ -n "$platforms" ]; then options+=(--opt "platform=$platforms"); fi
  if [ "$cache" = registry ]; then options+=(--import-cache "type=registry,ref=$repository-cache$buildkit_insecure" --export-cache "type=registry,ref=$repository-cache,mode=max$buildkit_insecure"); fi
  local annotations=""
  for item in "${labels[@]}"; do annotations+=",annotation.$item"; done
  local build=("${in_network[@]+"${in_network[@]}"}" buildctl-daemonless.sh build --progress plain --frontend dockerfile.v0 --local context=/work/context --local dockerfile=/work/context
    --opt "filename=$dockerfile" "${options[@]}" --output "$(buildkit_output)$annotations" --metadata-file /work/metadata.json)

  if [ "$dry_run" = true ]; then
    cat "$work/job.json" >&2
    run "build or push" "${kubectl[@]}" exec "job/$job" -- "${build[@]}"
    return
  fi
  : >"$work/buildkitd.toml"
  if [ "$insecure" = true ]; then
    printf '[registry."%s"]\n  http = %s\n  insecure = true\n' "${repository%%/*}" "$(case $registry_url in http:*) echo true ;; *) echo false ;; esac)" >"$work/buildkitd.toml"
  fi
  awk -F= 'NF > 1 { printf "[registry.\"%s\"]\n  mirrors = [\"%s\"]\n", $1, $2 }' <<<"${IMAGE_MIRRORS:-}" >>"$work/buildkitd.toml"
  if [ -n "${BUILDKITD_CONFIG:-}" ]; then
    # A table stands once in a document: where both have one, theirs.
    awk 'FILENAME == ARGV[1] { theirs[$0]; next } /^\[/ { out = ($0 in theirs) } !out' "$BUILDKITD_CONFIG" "$work/buildkitd.toml" >"$work/own.toml"
    cat "$work/own.toml" "$BUILDKITD_CONFIG" >"$work/buildkitd.toml"
  fi
  mkdir -p "$work/docker"
  undo=("${kubectl[@]}" delete job "$job" --ignore-not-found --wait=false)
  run "creating the BuildKit job" "${kubectl[@]}" create --filename "$work/job.json"
  run "starting the BuildKit job" await_pod
  run "sending the context" send_context
  # buildctl fails too where it cannot hand its traces to the daemon within a second or so, on a busy machine. This file it writes when
  # all is pushed.
  local result=0
  attempt "${kubectl[@]}" exec "job/$job" -- "${build[@]}" || result=$?
  "${kubectl[@]}" exec "job/$job" -- cat /work/metadata.json >"$work/metadata.json" 2>/dev/null || gave_up "build or push failed (exit $result)"
  buildkit_digest
}

# Until the job's pod runs; says why if it does not within five minutes.
await_pod() {
  local tries=0 selector="job-name=$job"
  until [ "$("${kubectl[@]}" get pod --selector "$selector" --output 'jsonpath={.items[0].status.containerStatuses[0].ready}' 2>/dev/null)" = true ]; do
    tries=$((tries + 1))
    if [ $tries -gt 600 ]; then
      "${kubectl[@]}" describe job "$job" | tail -n 10
      "${kubectl[@]}" describe pod --selector "$selector" | tail -n 10
      echo "the BuildKit pod did not start within 5 minutes"
      return 1
    fi
    sleep 0.5
  done
}

send_context() {
  local parts=(context docker buildkitd.toml) part
  for part in network.env ca; do if [ -e "$work/$part" ]; then parts+=("$part"); fi; done
  tar -C "$work" -cf - "${parts[@]}" | "${kubectl[@]}" exec --stdin "job/$job" -- tar -C /work -xf -
}

# What a local builder made for a registry in the cluster, through the API server, by another connection where one breaks off.
upload() {
  local tries=1
  if [ "$dry_run" = true ]; then
    say "would upload $work/layout through the API server"
    return
  fi
  # shellcheck disable=SC2086 # none, or one
  until attempt registry_push_layout "$work/layout" "$tag" $stack_tag; do
    if [ $tries = 3 ]; then gave_up "the push failed"; fi
    tries=$((tries + 1))
    registry_reopen
  done
}

# SPDX list of what is in the image: in a local folder, and as an artifact beside the image in the registry.
write_sbom() {
  mkdir -p "$sbom"
  local file=$sbom/$tag.spdx.json
  local from=${registry_url#*//}
  from=${from%/v2}
  (umask 077 && push_login "$from" >>"$work/logins")
  if [ -s "$work/logins" ]; then (umask 077 && auth_file "$work/syft") && export DOCKER_CONFIG=$work/syft; fi
  case $registry_url in http:*) export SYFT_REGISTRY_INSECURE_USE_HTTP=true ;; esac
  if [ "$insecure" = true ]; then export SYFT_REGISTRY_INSECURE_SKIP_TLS_VERIFY=true; fi
  if [ -n "$ca" ]; then export SSL_CERT_DIR=${SSL_CERT_DIR:-/etc/ssl/certs:/etc/pki/tls/certs}:$work/ca; fi
  SYFT_CHECK_FOR_APP_UPDATE=false run "listing the contents" syft scan "registry:$from/${repository#*/}@$1" --output "spdx-json=$work/sbom.json"
  if [ "$dry_run" = true ]; then return; fi
  mv "$work/sbom.json" "$file"
  if registry_attach "$1" application/spdx+json "$file"; then
    say "bill of materials in $file and beside the image"
  else
    say "bill of materials in $file; the registry did not take it as an artifact ($(registry_answer))"
  fi
}

# The build cache's digest in the registry, as BuildKit keeps one; nothing where there is none.
cache_digest() {
  if [ "$cache" != registry ] || [ "$builder" = buildah ] || [ "$dry_run" = true ]; then return 0; fi
  repository=$repository-cache registry_digest latest || true
}

# Deletes the image of this tag, unless a tag of another stack is on it.
delete_image() {
  local digest other tags
  digest=$(registry_digest "$tag") || fail "the registry did not answer for $repository:$tag ($(registry_answer)); nothing was deleted. Try again, or set deleteOnDestroy to false"
  if [ -z "$digest" ]; then
    say "$repository:$tag is not in the registry; nothing to delete"
    return
  fi
  tags=$(registry_tags) || fail "the registry did not list the tags of $repository ($(registry_answer)); nothing was deleted"
  for other in $tags; do
    case $other in
      "$tag" | "$stack"-[0-9]*t[0-9]*z) ;;
      *-[0-9]*t[0-9]*z)
        if [ "$(registry_digest "$other")" = "$digest" ]; then
          say "kept $repository:$tag: another stack has it as $other"
          return
        fi
        ;;
    esac
  done
  if [ "$dry_run" = true ]; then
    say "would delete $repository@$digest"
    return
  fi
  registry_delete "$digest" || fail "the registry refused to delete $repository@$digest ($(registry_answer)); allow deletion there (docker-registry: storage.delete.enabled), or set deleteOnDestroy to false"
  registry_delete_attached "$digest"
  say "deleted $repository@$digest"
}

# The proxy's variables that are set; programs go by one spelling or the other.
proxied=()
for variable in HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy; do
  if [ -n "${!variable:-}" ]; then proxied+=("$variable"); fi
done
if [ -n "$ca" ]; then
  mkdir "$work/ca"
  if [ "$ca" = - ]; then cat; else cat "$ca"; fi >"$work/ca/ca.crt"
fi

started=$(date +%s)
registry_configure
if [ "$registry_url" = http://127.0.0.1:9/v2 ] && [ "$action" = build ] && [ "$dry_run" = false ]; then
  fail "the registry ${repository%%/*} is not reached through the API server: $(tail -n 1 "$work/forward"). kubectl get pods --all-namespaces tells whether it runs"
fi
write_auth
# The password is in files of this run's own folder now; no program that is started needs it.
unset REGISTRY_PASSWORD REGISTRY_LOGINS
buildkit_insecure=""
if [ "$insecure" = true ]; then buildkit_insecure=",registry.insecure=true"; fi

case $action in
  inspect)
    if digest=$(registry_digest "$tag"); then
      if [ -n "$digest" ]; then echo present; else echo missing; fi
    else
      echo unknown
    fi
    exit 0
    ;;
  resolve)
    digest=$(registry_digest "$tag") || fail "${repository%%/*} did not answer for $repository:$tag ($(registry_answer))$(if [ "$(registry_status)" = 429 ]; then printf ': %s' "$limited"; fi)"
    if [ -z "$digest" ]; then fail "there is no image $repository:$tag"; fi
    echo "$digest"
    exit 0
    ;;
  delete)
    delete_image
    exit 0
    ;;
esac

if [ -n "$sbom" ]; then need syft "install it (github.com/anchore/syft), or leave out sbom."; fi
stack_tag=""
if [ -n "$stack" ]; then stack_tag=$(printf '%s' "$stack" | tr -c 'A-Za-z0-9_.-' '-')-$(date -u +%Y%m%dt%H%M%Sz); fi

built=false
if [ "$force" = false ] && digest=$(registry_digest "$tag") && [ -n "$digest" ]; then
  say "$repository:$tag is in the registry already; not built again"
  if [ "$dry_run" = true ]; then exit 0; fi
  if [ -n "$stack_tag" ] && ! registry_tag "$digest" "$stack_tag"; then say "could not tag it $stack_tag ($(registry_answer)): clean-images.sh may take it for unused"; fi
else
  stage_context
  describe
  say "building with $builder"
  former_cache=$(cache_digest)
  "build_${builder//-/_}"
  if [ "$in_cluster" = true ] && [ "$builder" != in-cluster ]; then upload; fi
  if [ "$dry_run" = true ]; then exit 0; fi
  if [ ! -s "$work/digest" ]; then
    tail -n 25 "$work/log" | sed "s|^|$name: \| |" >&2
    fail "the push ended without a digest; $(advice)"
  fi
  digest=$(cat "$work/digest")
  # The registry has the last word on what it holds; where it cannot be asked, the builder's.
  if served=$(registry_digest "$tag") && [ "$served" != "$digest" ]; then
    fail "pushed $digest, but $repository:$tag is \"$served\" in the registry; somebody else pushes this tag, or a proxy stands between"
  fi
  built=true
  # A cache that another took the tag of is named by nobody, and no list of the registry has it.
  if [ -n "$former_cache" ] && cached=$(cache_digest) && [ -n "$cached" ] && [ "$cached" != "$former_cache" ]; then repository=$repository-cache registry_delete "$former_cache" || true; fi
  say "built and pushed in $(($(date +%s) - started)) s as $repository:$tag"
fi
if [ -n "$sbom" ] && { [ "$built" = true ] || [ ! -f "$sbom/$tag.spdx.json" ]; }; then write_sbom "$digest"; fi
echo "${pulled_from:-${repository%%/*}}/${repository#*/}@$digest"
