#!/usr/bin/env bash
# Builds one image from a folder, pushes it, and prints its reference by digest.
# The AgentImages component runs it; people can too: see --help.
set -euo pipefail

usage() {
  cat <<'HELP'
Usage: scripts/build-image.sh --repository HOST/PATH/NAME --context FOLDER [options]

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
  --insecure         R's host may use plain HTTP or an unverified certificate REGISTRY_INSECURE=true
  --force            build even if the tag is in the registry
  --inspect          build nothing; print present, missing or unknown
  --delete           build nothing; delete the tag's image from the registry
  --dry-run          change nothing; print the commands that would run
  --verbose          show the builder's whole log, not only its end on failure
  --help             this text

Environment only:
  REGISTRY_USERNAME, REGISTRY_PASSWORD  log-in for R's host (else the builder's own log-ins are used)
  BUILD_IMAGE_STORAGE                   buildah: storage folder, default buildah's own
  BUILDAH_ISOLATION                     buildah: default chroot, which needs no privileges of a container runtime

Exit: 0 done, 1 failed (nothing was tagged), 2 bad input.
HELP
}

name=${IMAGE_NAME:-} repository=${IMAGE_REPOSITORY:-} context=${IMAGE_CONTEXT:-} tag=${IMAGE_TAG:-}
dockerfile=${IMAGE_DOCKERFILE:-Dockerfile} builder=${IMAGE_BUILDER:-buildah} platforms=${IMAGE_PLATFORMS:-}
cache=${IMAGE_CACHE:-} stack=${IMAGE_STACK:-} insecure=${REGISTRY_INSECURE:-false}
action=build force=false dry_run=false verbose=false
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
    --repository | --context | --name | --tag | --dockerfile | --arg | --builder | --platforms | --cache | --stack)
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
      esac
      shift 2
      ;;
    --insecure) insecure=true && shift ;;
    --force) force=true && shift ;;
    --inspect) action=inspect && shift ;;
    --delete) action=delete && shift ;;
    --dry-run) dry_run=true && shift ;;
    --verbose) verbose=true && shift ;;
    --help | -h) usage && exit 0 ;;
    *) bad_input "unknown option $1; see --help" ;;
  esac
done

name=${name:-${repository##*/}}
case $repository in
  */*) ;;
  *) bad_input "\"$repository\" is no repository; give --repository HOST/PATH/NAME, for example registry.example.org/build-platform/maven-dind" ;;
esac
if ! printf '%s' "$repository" | grep -Eq '^[A-Za-z0-9.:-]+(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)+$'; then
  bad_input "\"$repository\" is no repository name; after the host use lower-case letters and digits with single . _ - between them"
fi
if [ -n "$tag" ] && ! printf '%s' "$tag" | grep -Eq '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$'; then
  bad_input "\"$tag\" is no tag; use at most 128 letters, digits and . _ -"
fi
case $builder in
  buildah | buildx | in-cluster) ;;
  *) bad_input "builder \"$builder\" is unknown; use buildah, buildx or in-cluster" ;;
esac
if [ "$action" = build ]; then
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
else
  if [ -z "$tag" ]; then bad_input "--$action needs --tag"; fi
fi
if [ -z "$tag" ]; then
  tag=$name-by-hand
  force=true
fi

# Everything temporary, the credentials included, lives in one folder that only this user can read.
work=$(mktemp -d "${TMPDIR:-/tmp}/build-image.XXXXXX")
child=""
clean_up() {
  if [ -n "$child" ]; then kill "$child" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# shellcheck source=scripts/build-image-registry.sh
. "$(dirname "${BASH_SOURCE[0]}")/build-image-registry.sh"

# need PROGRAM FIX: stops if a program is not on PATH.
need() {
  if ! command -v "$1" >/dev/null; then fail "there is no $1 on PATH; $2"; fi
}

# run COMMAND...: runs a builder with its output in the log. Prints it instead on --dry-run.
run() {
  if [ "$dry_run" = true ]; then
    printf '%q ' "$@" >&2
    printf '\n' >&2
    return
  fi
  if [ "$verbose" = true ]; then
    "$@" > >(tee -a "$work/log" >&2) 2>&1 &
  else
    "$@" >>"$work/log" 2>&1 &
  fi
  child=$!
  local result=0
  wait "$child" || result=$?
  child=""
  if [ "$result" != 0 ]; then
    if [ "$verbose" = false ]; then tail -n 25 "$work/log" | sed "s|^|$name: \| |" >&2; fi
    fail "$1 failed (exit $result); $(advice)"
  fi
}

# What the end of the log most likely means, as something to do.
advice() {
  local log host=${repository%%/*}
  log=$(tail -n 60 "$work/log")
  has() { printf '%s' "$log" | grep -Eiq "$1"; }
  if has 'no space left on device|disk quota exceeded'; then
    echo "the disk is full: free some space (\`buildah rmi --prune\` or \`docker builder prune\`), or point BUILD_IMAGE_STORAGE and TMPDIR at a larger one."
  elif has 'server gave HTTP response to HTTPS client'; then
    echo "a registry speaks plain HTTP: if it is $host and you trust the network to it, set registry.insecure to true (--insecure)."
  elif has 'x509|certificate'; then
    echo "a registry's certificate is not trusted: install its CA on this machine, or for $host alone set registry.insecure to true (--insecure)."
  elif has 'unauthorized|authentication required|denied|forbidden|status 401|status 403'; then
    echo "a registry refused the log-in: check registry.username and registry.password for $host and that they may push to ${repository#*/}."
  elif has 'manifest unknown|manifest for .* not found|name unknown|reading manifest|: not found'; then
    echo "an image or file that the Dockerfile names does not exist: check the build arguments (${build_args[*]+"${build_args[*]}"}) and the line above."
  elif has 'connection refused|no such host|i/o timeout|network is unreachable|no route to host|TLS handshake timeout|connection reset'; then
    echo "a registry cannot be reached: check the name $host and the network from this machine."
  else
    echo "the lines above are the end of its log; run again by hand with --verbose for all of it."
  fi
}

# Credentials file in the format all builders read; only for this host, and only if a log-in was given.
write_auth() {
  if [ -z "${REGISTRY_USERNAME:-}" ]; then return; fi
  (
    umask 077
    mkdir -p "$work/docker"
    printf '{"auths":{"%s":{"auth":"%s"}}}\n' "${repository%%/*}" "$(printf '%s:%s' "$REGISTRY_USERNAME" "${REGISTRY_PASSWORD:-}" | base64 | tr -d '\n')" >"$work/docker/config.json"
  )
}

# A copy of the context with the modes git knows (644, 755), so that a clone's umask does not change the image.
stage_context() {
  staged=$context
  if [ "$dry_run" = true ]; then return; fi
  staged=$work/context
  cp -RP "$context" "$staged"
  chmod -R u=rwX,go=rX "$staged"
}

# What every builder is told, besides its own options: labels of provenance and the build arguments.
labels=()
describe() {
  labels=("org.opencontainers.image.title=$name" "org.opencontainers.image.version=$tag")
  local arg
  for arg in "${build_args[@]+"${build_args[@]}"}"; do
    case $arg in
      BASE_IMAGE=* | JENKINS_IMAGE=*)
        labels+=("org.opencontainers.image.base.name=${arg#*=}")
        case $arg in
          *@sha256:*) labels+=("org.opencontainers.image.base.digest=${arg##*@}") ;;
        esac
        ;;
    esac
  done
}

build_buildah() {
  need buildah "install it (Debian: apt-get install buildah), or set the builder to buildx or in-cluster."
  local buildah=(buildah) tls=(--tls-verify=true) options=() item
  if [ -n "${BUILD_IMAGE_STORAGE:-}" ]; then buildah+=(--root "$BUILD_IMAGE_STORAGE/root" --runroot "$BUILD_IMAGE_STORAGE/run"); fi
  if [ "$insecure" = true ]; then
    # Only this host, not every registry the Dockerfile names, as --tls-verify=false would; after this machine's own rules.
    local own=${CONTAINERS_REGISTRIES_CONF:-$HOME/.config/containers/registries.conf}
    if [ ! -f "$own" ]; then own=/etc/containers/registries.conf; fi
    {
      if [ -f "$own" ]; then cat "$own"; fi
      printf '\n[[registry]]\nlocation = "%s"\ninsecure = true\n' "${repository%%/*}"
    } >"$work/registries.conf"
    export CONTAINERS_REGISTRIES_CONF=$work/registries.conf
    tls=()
  fi
  if [ -f "$work/docker/config.json" ]; then options+=(--authfile "$work/docker/config.json"); fi
  local push=("${options[@]+"${options[@]}"}" "${tls[@]+"${tls[@]}"}" --digestfile "$work/digest")
  # --timestamp 0 sets every time in the image to 1970: the same content gives the same digest.
  options+=(--isolation "${BUILDAH_ISOLATION:-chroot}" --format oci --layers --timestamp 0 --identity-label=false --file "$staged/$dockerfile")
  if [ -f "$staged/$dockerfile.dockerignore" ]; then options+=(--ignorefile "$staged/$dockerfile.dockerignore"); fi
  if [ "$cache" = registry ]; then
    options+=(--cache-from "$repository-cache" --cache-to "$repository-cache")
  fi
  for item in "${build_args[@]+"${build_args[@]}"}"; do options+=(--build-arg "$item"); done
  for item in "${labels[@]}"; do options+=(--label "$item" --annotation "$item"); done

  local local_name="localhost/build-image-$name-$$"
  if [ "${platforms#*,}" = "$platforms" ]; then
    if [ -n "$platforms" ]; then options+=(--platform "$platforms"); fi
    run "${buildah[@]}" build "${options[@]}" --iidfile "$work/image" "$staged"
    local image=IMAGE
    if [ "$dry_run" = false ]; then image=$(cat "$work/image"); fi
    each_tag run "${buildah[@]}" push --format oci "${push[@]}" "$image"
  else
    run "${buildah[@]}" build "${options[@]}" --platform "$platforms" --manifest "$local_name" "$staged"
    each_tag run "${buildah[@]}" manifest push --all --format oci "${push[@]}" "$local_name"
    run "${buildah[@]}" manifest rm "$local_name"
  fi
}

# each_tag PUSH...: runs a push of buildah once for each tag.
each_tag() {
  local target
  for target in "$tag" $stack_tag; do "$@" "docker://$repository:$target"; done
}

started=$(date +%s)
registry_configure

if [ "$action" = inspect ]; then
  if digest=$(registry_digest "$tag"); then
    if [ -n "$digest" ]; then echo present; else echo missing; fi
  else
    echo unknown
  fi
  exit 0
fi

if [ "$dry_run" = false ] && [ "$force" = false ] && digest=$(registry_digest "$tag") && [ -n "$digest" ]; then
  say "$repository:$tag is in the registry already; not built again"
  echo "$repository@$digest"
  exit 0
fi

stack_tag=""
if [ -n "$stack" ]; then stack_tag=$(printf '%s' "$stack-$(date -u +%Y%m%dt%H%M%Sz)" | tr -c 'A-Za-z0-9_.-' '-'); fi
write_auth
stage_context
describe
say "building with $builder"
build_buildah
if [ "$dry_run" = true ]; then exit 0; fi
digest=$(cat "$work/digest")
if served=$(registry_digest "$tag") && [ "$served" != "$digest" ]; then
  fail "pushed $digest, but $repository:$tag is \"$served\" in the registry; somebody else pushes this tag, or a proxy stands between"
fi
say "built and pushed in $(($(date +%s) - started)) s as $repository:$tag"
echo "$repository@$digest"
