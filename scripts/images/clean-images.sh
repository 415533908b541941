#!/usr/bin/env bash
# Deletes images of this platform from the registry that neither a cluster nor a recent stack version uses.
set -euo pipefail

usage() {
  cat <<'HELP'
Usage: scripts/images/clean-images.sh --registry HOST[/PREFIX] [options] [NAME...]
       scripts/images/clean-images.sh --built-in NAMESPACE[/PREFIX] [options] [NAME...]

Looks at the images NAME... (default: every folder of images/ with a Dockerfile) and deletes what is not used. Kept are
  - images whose digest stands anywhere in the cluster's pods, workloads or config maps (pod templates of agents included),
  - the last N images of each stack, by the tags <stack>-<time> that build-image.sh sets; a stack's version N back needs no older one,
  - everything with a tag that build-image.sh did not make.
Prints the references it deleted on standard output, one per line, and what it kept and why on standard error.
Do not run it while a `pulumi up` runs. Another registry frees the space with its own garbage collection; the built-in one is
started anew for it, which takes seconds, and not while an image is being built.

  --registry R      host and prefix, as registry.host and registry.prefix in the stack's config
  --built-in N      the stack's own registry instead: its namespace and registry.prefix, such as image-registry/build-platform,
                    in the cluster of the first --kube-context
  --caches          delete the build caches NAME-cache too (imageBuild.cache: registry): the next builds start without
  --keep N          versions to keep of each stack; default 5
  --kube-context C  cluster to ask, repeatable: name every cluster that pulls from R; default: the current context
  --no-cluster      ask no cluster: only stack versions count
  --insecure        R's host may use plain HTTP or an unverified certificate
  --ca FILE         certificates in PEM to trust beside this machine's own
  --dry-run         delete nothing, print what would be
  --help            this text

Environment: REGISTRY_USERNAME and REGISTRY_PASSWORD, KUBECONFIG, HTTPS_PROXY and NO_PROXY.
Exit: 0 done, 1 failed (nothing further is deleted), 2 bad input.
HELP
}

say() { printf 'clean-images: %s\n' "$*" >&2; }
bad_input() {
  say "$*"
  exit 2
}
fail() {
  say "$*"
  exit 1
}

registry_name="" keep=5 insecure=false ca="" dry_run=false cluster=true in_cluster=false forward="" kube_context="" built_in="" caches=false
contexts=() names=()
while [ $# -gt 0 ]; do
  case $1 in
    --registry | --built-in | --keep | --kube-context | --ca)
      if [ $# -lt 2 ]; then bad_input "$1 needs a value; see --help"; fi
      case $1 in
        --registry) registry_name=${2%/} ;;
        --built-in) built_in=${2%/} ;;
        --keep) keep=$2 ;;
        --kube-context) contexts+=("$2") ;;
        --ca) ca=$2 ;;
      esac
      shift 2
      ;;
    --no-cluster) cluster=false && shift ;;
    --caches) caches=true && shift ;;
    --insecure) insecure=true && shift ;;
    --dry-run) dry_run=true && shift ;;
    --help | -h) usage && exit 0 ;;
    -*) bad_input "unknown option $1; see --help" ;;
    *) names+=("$1") && shift ;;
  esac
done
if [ -n "$ca" ] && [ ! -r "$ca" ]; then bad_input "there is no file \"$ca\" that can be read; give --ca a file of certificates in PEM"; fi
kube_context=${contexts[0]:-}
if [ -n "$built_in" ]; then
  if [ -n "$registry_name" ]; then bad_input "give --registry or --built-in, not both"; fi
  if [ "$cluster" = false ]; then bad_input "--built-in and --no-cluster: the registry is in the cluster that is not to be asked"; fi
  if ! printf '%s' "$built_in" | grep -Eq '^[a-z0-9-]+(/|$)'; then bad_input "--built-in $built_in is no namespace with a prefix; give NAMESPACE/PREFIX, for example image-registry/build-platform"; fi
  in_cluster=true registry_namespace=${built_in%%/*}
  registry_name=image-registry.$registry_namespace.svc:5001${built_in#"$registry_namespace"}
fi
if [ -z "$registry_name" ]; then bad_input "give --registry HOST/PREFIX, for example registry.example.org/build-platform, or --built-in NAMESPACE/PREFIX"; fi
case $keep in
  "" | *[!0-9]* | 0) bad_input "--keep $keep is no number above 0; a stack needs at least its present images" ;;
esac
here=$(dirname "${BASH_SOURCE[0]}")
if [ ${#names[@]} -eq 0 ]; then
  for file in "$here"/../../images/*/Dockerfile; do
    if [ -f "$file" ]; then names+=("$(basename "$(dirname "$file")")"); fi
  done
fi
if [ ${#names[@]} -eq 0 ]; then bad_input "there is no folder with a Dockerfile in images/; name the images"; fi

work=$(mktemp -d "${TMPDIR:-/tmp}/clean-images.XXXXXX")
trap 'if [ -n "$forward" ]; then kill "$forward" 2>/dev/null || true; fi; rm -rf "$work"' EXIT
# shellcheck source=scripts/images/build-image-registry.sh
. "$here/build-image-registry.sh"

# Digests that clusters name. A cluster that cannot be asked stops everything: not knowing is no reason to delete.
: >"$work/used"
# kubectl_in CONTEXT ARGUMENTS: of the context that is named, or the current one.
kubectl_in() {
  local kubectl=("${kubectl_direct[@]}" --request-timeout 30s)
  if [ -n "$1" ]; then kubectl+=(--context "$1"); fi
  "${kubectl[@]}" "${@:2}"
}
cluster_digests() {
  kubectl_in "$1" get pods,replicasets,deployments,statefulsets,daemonsets,jobs,cronjobs,configmaps --all-namespaces --output json >"$work/objects" 2>"$work/error" ||
    fail "cluster ${1:-of the current context} cannot be asked what it runs: $(tail -n 1 "$work/error"); nothing was deleted. Mend the access, or give --no-cluster if no cluster uses these images"
  { grep -Eo 'sha256:[0-9a-f]{64}' "$work/objects" || true; } >>"$work/used"
  rm "$work/objects"
}
if [ "$cluster" = true ]; then
  if ! command -v kubectl >/dev/null; then fail "there is no kubectl on PATH to ask what the cluster runs; install it, or give --no-cluster if no cluster uses these images"; fi
  for context in "${contexts[@]+"${contexts[@]}"}"; do cluster_digests "$context"; done
  if [ ${#contexts[@]} -eq 0 ]; then cluster_digests ""; fi
fi

# What is being built may be on its way into the registry.
builds_running() { kubectl_in "$kube_context" get jobs --all-namespaces --selector app.kubernetes.io/name=image-build --output 'jsonpath={.items[?(@.status.active==1)].metadata.name}'; }
if [ "$in_cluster" = true ] && running=$(builds_running) && [ -n "$running" ]; then fail "an image is being built ($running); nothing was deleted. Run this again when no pulumi up runs"; fi

# Reads lines "tag digest"; prints "keep|delete|foreign tag digest reason" for each. A digest is deleted only if no tag keeps it.
decide() {
  awk -v keep="$keep" -v name="$name" '
    FILENAME == ARGV[1] { used[$1] = 1; next }
    {
      tags[++n] = $1; digest[$1] = $2
      if ($1 ~ /-[0-9]+t[0-9]+z$/) {
        stack = $1; sub(/-[0-9]+t[0-9]+z$/, "", stack)
        # Sorted with the newest first, so the first ones of a stack are its last versions. The same image twice is one.
        if (!((stack, $2) in counted)) { counted[stack, $2] = 1; versions[stack]++ }
        if (versions[stack] <= keep && !($2 in why)) why[$2] = "one of the last " keep " of stack " stack
      } else if ($1 ~ ("^" name "-[0-9a-f]+$")) {
      } else foreign[$2] = $1
      if ($2 in used) why[$2] = "in use in the cluster"
    }
    END {
      for (i = 1; i <= n; i++) {
        d = digest[tags[i]]
        if (d in foreign) print "keep", tags[i], d, "tag " foreign[d] " was made by somebody else"
        else if (d in why) print "keep", tags[i], d, why[d]
        else print "delete", tags[i], d, "unused"
      }
    }' "$work/used" "$work/tags"
}

# delete_doomed [WHAT]: deletes the manifests of $work/doomed from the repository. WHAT they are, where they are no images with tags.
delete_doomed() {
  local digest
  while read -r digest; do
    if [ "$dry_run" = false ]; then
      if ! registry_delete "$digest"; then
        say "$repository@$digest: the registry refused to delete it (status $(registry_status)); allow deletion there (docker-registry: storage.delete.enabled)"
        failed=1
        continue
      fi
      registry_delete_attached "$digest"
    else
      say "would delete $repository@$digest (${1:-$(awk -v d="$digest" '$3 == d { printf "%s ", $2 }' "$work/decisions" | sed 's/ $//')})"
    fi
    printf '%s@%s\n' "$repository" "$digest"
  done <"$work/doomed"
}

if [ -n "$ca" ]; then
  mkdir "$work/ca"
  cp "$ca" "$work/ca/ca.crt"
fi
failed=0
for name in "${names[@]}"; do
  repository=$registry_name/$name
  registry_configure
  tags=$(registry_tags) || fail "$repository: the registry did not list its tags (status $(registry_status)); nothing further was deleted. Check host, log-in and --insecure"
  : >"$work/tags.unsorted"
  for tag in $tags; do
    # Bills of materials go with their image.
    case $tag in sha256-*) continue ;; esac
    digest=$(registry_digest "$tag") || fail "$repository:$tag: the registry did not answer (status $(registry_status)); nothing further was deleted"
    if [ -n "$digest" ]; then printf '%s %s\n' "$tag" "$digest" >>"$work/tags.unsorted"; fi
  done
  # Newest time first; tags without a time have no say in the order.
  sed 's/^\(.*-\)\([0-9]\{8\}t[0-9]\{6\}z\) /\2 \1\2 /; t
    s/^/0 /' "$work/tags.unsorted" | sort -r -k 1,1 | cut -d ' ' -f 2- >"$work/tags"
  decide >"$work/decisions"
  while read -r decision tag digest reason; do
    if [ "$decision" = keep ]; then say "kept $repository:$tag: $reason"; fi
  done <"$work/decisions"
  awk '$1 == "delete" { print $3 }' "$work/decisions" | sort -u >"$work/doomed"
  delete_doomed
done
if [ "$caches" = true ]; then
  for name in "${names[@]}"; do
    repository=$registry_name/$name-cache
    registry_configure
    tags=$(registry_tags) || fail "$repository: the registry did not list its tags (status $(registry_status)); nothing further was deleted"
    for tag in $tags; do registry_digest "$tag" || fail "$repository:$tag: the registry did not answer (status $(registry_status)); nothing further was deleted"; done | sort -u >"$work/doomed"
    delete_doomed "build cache"
  done
fi
# Its space is freed at its start, before anything can be uploaded.
if [ "$in_cluster" = true ] && [ "$dry_run" = false ]; then
  rollout=(--namespace "$registry_namespace" rollout)
  if ! kubectl_in "$kube_context" "${rollout[@]}" restart deployment/image-registry >&2 || ! kubectl_in "$kube_context" --request-timeout 0 "${rollout[@]}" status deployment/image-registry --timeout 5m >&2; then
    fail "the registry did not start anew, so its space is not free yet: kubectl -n $registry_namespace describe pods tells why"
  fi
fi
exit "$failed"
