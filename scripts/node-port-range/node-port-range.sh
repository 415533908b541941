#!/bin/sh
# Sets --service-node-port-range of this node's kube-apiserver (a kubeadm-style static pod), waits
# until it is served, and can put back what was there before. `--help` says how to use it.
#
# Needs a POSIX shell, awk and the usual small tools (grep, sed, cp, mv, sync, diff, sha256sum or
# cksum) and one of kubectl, curl, openssl to ask for /readyz. Nothing is installed on the node.
#
# For tests only: NODE_PORT_RANGE_ROOT=DIR takes /etc, /proc, /run and /var from below DIR, and
# NODE_PORT_RANGE_TEST_KILL_AFTER=STEP kills the script (SIGKILL) right after a step; the steps are
# lock state backup journal temp rename serving reserve kubeadm record.
set -u
LC_ALL=C
export LC_ALL
umask 077
# This node's own API is asked, never by way of a proxy.
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY

usage() {
  cat <<'USAGE'
Usage: node-port-range.sh show|apply|restore [options]

Commands
  show      print the range in the manifest, in the running kube-apiserver and in kubeadm-config;
            reads only
  apply     put --range into the kube-apiserver manifest and wait until it is served and /readyz
            answers 200; on failure put the old manifest back and wait for that
  restore   put back what was there before the first apply; with --range: that range instead

Options
  --range MIN-MAX          the node-port range, such as 80-32767 (apply; optional for show, restore)
  --manifest FILE          work on this file. A plain file outside the kubelet's manifest folder is
                           only edited: no cluster is asked, nothing is waited for. Without this
                           option the file is found in the running kubelet's staticPodPath.
  --dry-run                print what apply or restore would change as a unified diff; write nothing
  --timeout SECONDS        how long to wait for the apiserver, before it is put back (default 300)
  --ports PORT,PORT        node ports that the ingress will have: refused where one of them is the API server's own, or where
                           a program of this node listens on it and no Service holds it yet (show: said)
  --reserve-local-ports    also keep the range from local port allocation, over reboots
                           (net.ipv4.ip_local_reserved_ports in /etc/sysctl.d)
  --skip-service-check     narrow the range even though the Services cannot be listed; it does not
                           override a Service that is known to hold a port
  --json                   show: one JSON object
  --mark TEXT              apply: remember TEXT as the name of this change; show --json gives it back
                           as long as the change is in force (used by the Pulumi component)
  --owner TEXT             apply: remember TEXT as the one who asked for the change; restore: do nothing where somebody
                           else has asked for it since (used by the Pulumi component, for nodes that get another name)
  --help                   this text

Exit status
  0  in force (show: could be read)
  1  failed; the manifest is as it was before this run
  2  bad input or refused; nothing was written

Files
  /etc/kubernetes/backup/                  the last five manifests replaced here, named by time and
                                           content hash
  /etc/kubernetes/backup/node-port-range/  what restore needs
  /etc/sysctl.d/99-node-port-range.conf    with --reserve-local-ports
  /run/node-port-range.lock.*              one run at a time
  All of them are gone once restore has brought the old manifest back.
  For a plain --manifest FILE, backup and memory live beside it in .FILE.node-port-range/; without
  that memory, restore removes the flag.
The manifest is written under a dot name beside the old one (which the kubelet ignores), synced,
and renamed over it. A run that was cut off at any point is completed by running it again.
The flag is also set in the ConfigMap kube-system/kubeadm-config where kubectl and
/etc/kubernetes/admin.conf exist, so that `kubeadm upgrade` keeps it.
USAGE
}

ROOT=${NODE_PORT_RANGE_ROOT:-}
DEFAULT_RANGE=30000-32767 # kube-apiserver's own default
CONFIGMAP_NOTE=build-platform/node-port-range-before
TAB=$(printf '\t')
COMMAND='' RANGE='' MANIFEST='' DRY_RUN='' JSON='' MARK='' RESERVE='' SKIP_CHECK='' PORTS='' TIMEOUT=300
LIVE='' HELD_LOCK='' VALUE='' WORK='' WROTE='' FRESH='' COPY='' OWNER='' ASKED=''

# ---- parts: they lie beside this file; in what goes to a node, bundle.sh has put their text here --
case $0 in */*) PARTS=${0%/*} ;; *) PARTS=. ;; esac
. "$PARTS/tools.sh"
ENGINE=$(cat "$PARTS/manifest.awk") # the reader and editor of manifests
. "$PARTS/node.sh"
. "$PARTS/apiserver.sh"
. "$PARTS/guards.sh"
. "$PARTS/writing.sh"
. "$PARTS/kubeadm.sh"
. "$PARTS/local-ports.sh"

# ---- commands -----------------------------------------------------------------------------------
# Why the wanted range is not in force, one reason a line.
reasons() {
  if [ "$AGREES" != yes ]; then
    if [ "$HITS" = 0 ]; then echo "the manifest does not have the flag (default $DEFAULT_RANGE)"; else echo "the manifest has $FLAG"; fi
  fi
  if [ -z "$LIVE" ]; then return; fi
  if [ "$AGREES" = yes ] && [ "$SERVING" != "value $RANGE" ]; then echo "the running kube-apiserver serves ${SERVING:-nothing}"; fi
  if [ -n "$KUBEADM" ] && [ "$KUBEADM" != "value $RANGE" ]; then echo "kubeadm-config has ${KUBEADM#value }, so a kubeadm upgrade would lose the range"; fi
  if [ -n "$RESERVE" ] && ! reserved; then echo "the range is not reserved from local port allocation"; fi
}
fresh_mark() {
  {
    cat "$MANIFEST" "$ROOT/etc/machine-id" "$ROOT/etc/kubernetes/pki/apiserver.crt" 2>/dev/null
    remembered mark
    cat "$WORK/reasons"
  } >"$WORK/identity"
  hash_of "$WORK/identity"
}
show() {
  locate
  SERVING='' KUBEADM='' READY=false
  VALUE=$RANGE
  if [ -n "$LIVE" ]; then
    SERVING=$(serving)
    if ready; then READY=true; fi
    if [ "$READY" = true ]; then read_kubeadm || true; fi
  fi
  : >"$WORK/reasons"
  : >"$WORK/refusals"
  in_force=null mark='' text=''
  if [ -n "$RANGE" ]; then
    if [ -n "$LIVE" ]; then (guard "$RANGE") 2>"$WORK/guard" || sed 's/^node-port-range: //' "$WORK/guard" >>"$WORK/warnings"; fi
    if [ -n "$LIVE" ]; then
      claims "$PORTS" >"$WORK/refusals"
      if [ "$AGREES" != yes ] && [ "$READY" = false ]; then answers || printf '%s\n' "$PROBLEM" >>"$WORK/refusals"; fi
    fi
    reasons >"$WORK/reasons"
    in_force=false
    if [ ! -s "$WORK/reasons" ]; then
      in_force=true
      mark=$(remembered mark)
    fi
    if [ -z "$mark" ]; then mark=$(fresh_mark); fi
    VALUE=$RANGE
    text=$(engine set "$MANIFEST" >"$WORK/new" && show_diff "$MANIFEST" "$WORK/new") || true
  fi
  if [ -n "$JSON" ]; then
    printf '{"node":%s,"manifest":%s,"flag":%s' "$(json "$(uname -n)")" "$(json "$MANIFEST")" "$(json_or_null "$FLAG")"
    printf ',"serving":%s,"ready":%s,"kubeadmConfig":%s' "$(json_or_null "${SERVING#value }")" "$READY" "$(json_or_null "${KUBEADM#value }")"
    printf ',"before":%s,"inForce":%s,"mark":%s' "$(json_or_null "$(remembered before)")" "$in_force" "$(json_or_null "$mark")"
    for list in reasons warnings refusals; do
      printf ',"%s":[' "$list"
      sep=''
      if [ -f "$WORK/$list" ]; then while IFS= read -r line; do printf '%s%s' "$sep" "$(json "$line")" && sep=,; done <"$WORK/$list"; fi
      printf ']'
    done
    printf ',"diff":%s}\n' "$(json "$text")"
    return
  fi
  printf 'manifest        %s\n' "$MANIFEST"
  printf 'range           %s\n' "${FLAG:-absent (default $DEFAULT_RANGE)}"
  if [ -n "$LIVE" ]; then
    printf 'served          %s\n' "$(printf '%s' "${SERVING#value }" | sed "s/^absent$/absent (default $DEFAULT_RANGE)/;s/^$/no kube-apiserver runs/")"
    printf 'ready           %s\n' "$READY"
    printf 'kubeadm-config  %s\n' "${KUBEADM:-unknown}" | sed 's/value //'
  fi
  if [ -f "$STATE/before" ]; then printf 'before          %s\n' "$(remembered before | sed 's/^value //')"; fi
  if [ -n "$RANGE" ]; then
    printf 'in force        %s\n' "$in_force"
    sed 's/^/                because /' "$WORK/reasons"
    if [ -f "$WORK/warnings" ]; then sed 's/^/warning         /' "$WORK/warnings"; fi
    sed 's/^/refused         /' "$WORK/refusals"
  fi
}

# Finds the manifest and, unless nothing is to be written, takes the lock and reads it again.
open_manifest() {
  locate
  if [ -n "$DRY_RUN" ]; then return; fi
  if [ -n "$LIVE" ]; then mkdir -p "${LOCK%/*}"; fi
  lock
  # Another run may have changed it while this one waited.
  VALUE=$RANGE
  inspect "$MANIFEST" || refuse "$MANIFEST: $REASON"
}
apply() {
  if [ -z "$RANGE" ]; then refuse "apply needs --range MIN-MAX, such as --range 80-32767"; fi
  open_manifest
  VALUE=$RANGE
  engine set "$MANIFEST" >"$WORK/new" || refuse "$MANIFEST: $(cat "$WORK/new")"
  if [ -n "$LIVE" ]; then
    if [ "$AGREES" != yes ]; then answers || refuse "$PROBLEM"; fi
    taken=$(claims "$PORTS")
    if [ -n "$taken" ]; then refuse "$taken"; fi
    if [ "$AGREES" != yes ]; then guard "$RANGE"; fi
  fi
  if [ -n "$DRY_RUN" ]; then
    show_diff "$MANIFEST" "$WORK/new"
    return
  fi
  read_journal
  # Memory of a run that never came to its end is worth nothing once its manifest is gone.
  if [ ! -f "$STATE/applied" ] && [ ! -f "$PREVIOUS" ]; then FRESH=yes && rm -rf "$STATE"; fi
  remember
  : >"$WORK/reasons"
  if [ -z "$MARK" ]; then MARK=$(remembered mark); fi
  if [ -z "$MARK" ]; then MARK=$(fresh_mark); fi
  if [ "$AGREES" != yes ]; then install "$WORK/new"; fi
  serve_or_roll_back "$RANGE"
  step serving
  if [ -n "$LIVE" ]; then
    if [ -n "$RESERVE" ]; then reserve; else unreserve; fi
    step reserve
    apply_kubeadm
    step kubeadm
  fi
  if [ -f "$STATE/original.new" ]; then mv -f "$STATE/original.new" "$STATE/original"; fi
  if ! { printf '%s\n' "$RANGE" | put "$STATE/applied" && hash_of "$MANIFEST" | put "$STATE/sum" && printf '%s\n' "$OWNER" | put "$STATE/owner" && printf '%s\n' "$MARK" | put "$STATE/mark"; }; then
    warn "in force, but it could not be written down in $STATE: run this again once there is room"
  fi
  step record
  close_journal
  if [ -n "$WROTE" ]; then printf '%s in force (was %s)\n' "$RANGE" "${FLAG:-$DEFAULT_RANGE}"; else printf '%s in force already\n' "$RANGE"; fi
}

restore() {
  open_manifest
  since=$(remembered owner)
  if [ -n "$OWNER" ] && [ -n "$since" ] && [ "$OWNER" != "$since" ]; then
    echo "nothing to restore for $OWNER: $since has asked for this node's range since"
    return
  fi
  target=$(remembered before)
  if [ -n "$RANGE" ]; then
    target="value $RANGE"
  elif [ -z "$target" ]; then
    if [ -n "$LIVE" ]; then
      echo "nothing to restore: no change by this script is remembered on this node (give --range to set one)"
      return
    fi
    target=absent
  fi
  want=''
  if [ "$target" != absent ]; then want=${target#value }; fi
  sum=$(hash_of "$MANIFEST")
  VALUE=$want
  if [ -z "$RANGE" ] && [ -f "$STATE/original.new" ] && [ "$sum" = "$(remembered written)" ]; then
    cp "$STATE/original.new" "$WORK/new"
  elif [ -z "$RANGE" ] && [ -f "$STATE/original" ] && { [ "$sum" = "$(remembered sum)" ] || [ "$sum" = "$(remembered written)" ] || same "$STATE/original" "$MANIFEST"; }; then
    cp "$STATE/original" "$WORK/new"
  elif [ -n "$want" ]; then
    engine set "$MANIFEST" >"$WORK/new" || refuse "$MANIFEST: $(cat "$WORK/new")"
  else engine remove "$MANIFEST" >"$WORK/new" || refuse "$MANIFEST: $(cat "$WORK/new")"; fi
  if [ -n "$LIVE" ] && ! same "$MANIFEST" "$WORK/new"; then guard "${want:-$DEFAULT_RANGE}"; fi
  if [ -n "$DRY_RUN" ]; then
    show_diff "$MANIFEST" "$WORK/new"
    return
  fi
  mkdir -p "$STATE" || gave_up "cannot write to $BACKUP"
  step state
  read_journal
  if ! same "$MANIFEST" "$WORK/new"; then install "$WORK/new"; fi
  serve_or_roll_back "$want"
  step serving
  if [ -n "$LIVE" ]; then
    unreserve
    step reserve
    restore_kubeadm "$target"
    step kubeadm
    # The old manifest is served: nothing of this script stays on the node.
    close_journal
    rm -f "$BACKUP/$NAME".[0-9]*T[0-9]*Z.*
    rm -rf "$STATE"
    rmdir "$BACKUP" 2>/dev/null || true
  else
    close_journal
    rm -rf "$BACKUP"
  fi
  step record
  printf 'restored: %s\n' "${want:-no flag (default $DEFAULT_RANGE)}"
}

valid_range() {
  printf '%s\n' "$1" | awk '/^[0-9]+-[0-9]+$/ && length($0) <= 11 { split($0, r, "-"); if (r[1] >= 1 && r[1] + 0 <= r[2] + 0 && r[2] <= 65535 && r[1] !~ /^0/ && r[2] !~ /^0/) ok = 1 } END { exit !ok }'
}

main() {
  while [ $# -gt 0 ]; do
    case $1 in
    show | apply | restore)
      if [ -n "$COMMAND" ]; then refuse "two commands: $COMMAND and $1"; fi
      COMMAND=$1
      ;;
    --help | -h)
      usage
      exit 0
      ;;
    --dry-run) DRY_RUN=yes ;;
    --json) JSON=yes ;;
    --reserve-local-ports) RESERVE=yes ;;
    --skip-service-check) SKIP_CHECK=yes ;;
    --range=* | --manifest=* | --timeout=* | --mark=* | --owner=* | --ports=*)
      option=${1%%=*}
      argument=${1#*=}
      shift
      set -- "$option" "$argument" "$@"
      continue
      ;;
    --range | --manifest | --timeout | --mark | --owner | --ports)
      if [ $# -lt 2 ] || [ -z "$2" ]; then refuse "$1 needs a value (--help shows all options)"; fi
      case $1 in
      --range) RANGE=$2 ;;
      --manifest) MANIFEST=$2 ;;
      --timeout) TIMEOUT=$2 ;;
      --mark) MARK=$2 ;;
      --owner) OWNER=$2 ;;
      --ports) PORTS=$2 ;;
      esac
      shift
      ;;
    *) refuse "unknown argument $1 (--help shows all options)" ;;
    esac
    shift
  done
  if [ -z "$COMMAND" ]; then
    usage >&2
    exit 2
  fi
  for text in "$MARK" "$OWNER"; do
    case $text in *[!A-Za-z0-9._-]*) refuse "--mark or --owner $text: expected letters, digits, dots, dashes and underscores" ;; esac
  done
  if [ -n "$RANGE" ] && ! valid_range "$RANGE"; then refuse "--range $RANGE: expected MIN-MAX with 1 <= MIN <= MAX <= 65535, such as 80-32767"; fi
  case $PORTS in *[!0-9,]*) refuse "--ports $PORTS: expected numbers with commas between them, such as 80,443" ;; esac
  case $TIMEOUT in '' | *[!0-9]*) refuse "--timeout $TIMEOUT: expected a number of seconds" ;; esac
  if [ -n "$JSON" ] && [ "$COMMAND" != show ]; then refuse "--json belongs to show"; fi
  WORK_PREFIX=${TMPDIR:-/tmp}/node-port-range
  WORK=$WORK_PREFIX.$$.$(started_at $$)
  rm -rf "$WORK"
  mkdir -m 700 "$WORK" || refuse "cannot make the folder $WORK"
  trap cleanup EXIT
  trap interrupted INT TERM
  # A lost SSH connection must not stop a run between the write and the wait: it ends by itself.
  trap '' HUP PIPE
  "$COMMAND"
}

main "$@" </dev/null
