# The node: its kubelet, its manifest, one run at a time.

# shellcheck disable=SC2012  # readlink is not in POSIX, and these names are the kernel's
link_of() { ls -l "$1" 2>/dev/null | sed 's/.*-> //'; }
arguments() { { tr '\000' '\n' <"$1"; } 2>/dev/null; } # nothing if the process has ended
# Prints the arguments, one a line, of each process of this mount namespace whose program is $1.
# Each process ends with an empty line; the first line is its id.
processes() {
  own=$(link_of "$ROOT/proc/$$/ns/mnt")
  grep -l "$1" "$ROOT"/proc/[0-9]*/cmdline 2>/dev/null | while IFS= read -r file; do
    dir=${file%/cmdline}
    first=$(arguments "$file" | sed -n 1p)
    if [ "${first##*/}" != "$1" ]; then continue; fi
    if [ "${2:-}" = here ] && [ -n "$own" ]; then
      if [ "$(link_of "$dir/ns/mnt")" != "$own" ]; then continue; fi
    fi
    printf '%s\n' "${dir##*/}"
    arguments "$file"
    printf '\n'
  done
}
# flag_of NAME: the last value of --NAME in the arguments on standard input.
flag_of() {
  awk -v name="--$1" '
    taken { value = $0; taken = 0; next }
    $0 == name { taken = 1; next }
    index($0, name "=") == 1 { value = substr($0, length(name) + 2) }
    END { print value }'
}

# Sets STATIC_PATH from the running kubelet's flags and configuration, or from the usual places.
find_static_path() {
  STATIC_PATH=''
  args=$(processes kubelet here | awk 'started && $0 == "" { exit } { started = 1; print }')
  config=$(printf '%s\n' "$args" | flag_of config)
  drop_in=$(printf '%s\n' "$args" | flag_of config-dir)
  STATIC_PATH=$(printf '%s\n' "$args" | flag_of pod-manifest-path)
  if [ -z "$STATIC_PATH" ]; then
    for file in "$ROOT${config:-/var/lib/kubelet/config.yaml}" ${drop_in:+"$ROOT$drop_in"/*.conf}; do
      if [ ! -r "$file" ]; then continue; fi
      VALUE=staticPodPath
      found=$(engine key "$file") || refuse "$file: $found"
      if [ -n "$found" ]; then
        STATIC_PATH=$found
        case $STATIC_PATH in /*) ;; *) STATIC_PATH=${file%/*}/$STATIC_PATH && STATIC_PATH=${STATIC_PATH#"$ROOT"} ;; esac
      fi
    done
  fi
  STATIC_PATH=$ROOT${STATIC_PATH:-/etc/kubernetes/manifests}
  STATIC_PATH=${STATIC_PATH%/}
}

# inspect FILE: sets APISERVER HITS FLAG AGREES PORT ADDRESS BIND; false with REASON if it cannot be read.
inspect() {
  APISERVER=no HITS=0 FLAG='' AGREES=no PORT='' ADDRESS='' BIND='' REASON=''
  report=$(engine inspect "$1") || {
    REASON=$report
    return 1
  }
  while IFS=$TAB read -r key value; do
    case $key in
    apiserver) APISERVER=$value ;;
    hits) HITS=$value ;;
    value) FLAG=$value ;;
    agrees) AGREES=$value ;;
    port) PORT=$value ;;
    address) ADDRESS=$value ;;
    bind) BIND=$value ;;
    esac
  done <<END
$report
END
  PORT=${PORT:-6443}
  ADDRESS=${ADDRESS:-127.0.0.1}
}

# Sets MANIFEST, LIVE and the places of backup, memory and lock.
locate() {
  find_static_path
  if [ -n "$MANIFEST" ]; then
    if [ -d "$MANIFEST" ]; then refuse "--manifest $MANIFEST: is a folder; expected the manifest file in it"; fi
    if [ ! -f "$MANIFEST" ]; then refuse "--manifest $MANIFEST: no such file"; fi
    case $MANIFEST in */*) ;; *) MANIFEST=./$MANIFEST ;; esac
    case ${MANIFEST##*/} in .*) refuse "--manifest $MANIFEST: the kubelet ignores files with a dot name; give the manifest itself" ;; esac
    if [ "$(cd "${MANIFEST%/*}/" && pwd -P)" = "$(cd "$STATIC_PATH" 2>/dev/null && pwd -P)" ]; then LIVE=yes; fi
  else
    LIVE=yes
    if [ ! -d "$STATIC_PATH" ]; then refuse "no folder $STATIC_PATH: is this a control-plane node with static pods? Give --manifest FILE otherwise"; fi
    for file in "$STATIC_PATH"/*; do
      if [ ! -f "$file" ] || ! grep -q kube-apiserver "$file"; then continue; fi
      VALUE=$RANGE
      if ! inspect "$file"; then
        case ${file##*/} in kube-apiserver*) refuse "$file: $REASON" ;; *) continue ;; esac
      fi
      if [ "$APISERVER" != yes ]; then continue; fi
      if [ -n "$MANIFEST" ]; then refuse "two manifests run a kube-apiserver: $MANIFEST and $file; the kubelet reads both (also a backup copy), so move one out of $STATIC_PATH first"; fi
      MANIFEST=$file
    done
    if [ -z "$MANIFEST" ]; then refuse "no kube-apiserver manifest in $STATIC_PATH: is this a control-plane node?"; fi
  fi
  if [ -L "$MANIFEST" ]; then
    MANIFEST=$(readlink -f "$MANIFEST") || refuse "$MANIFEST is a symbolic link that cannot be followed; give the file itself by --manifest"
  fi
  FOLDER=${MANIFEST%/*}
  NAME=${MANIFEST##*/}
  TEMP=$FOLDER/.$NAME.node-port-range.tmp
  PREVIOUS=$FOLDER/.$NAME.node-port-range.previous
  if [ -n "$LIVE" ]; then
    BACKUP=$ROOT/etc/kubernetes/backup
    LOCK=$ROOT/run/node-port-range.lock
    if [ "$(cd "$BACKUP" 2>/dev/null && pwd -P)" = "$STATIC_PATH" ]; then refuse "the kubelet's manifest folder is $BACKUP itself, so there is no safe place for a backup"; fi
    if [ -z "$ROOT" ] && [ "$(id -u)" != 0 ]; then refuse "must run as root on a control-plane node"; fi
  else
    BACKUP=$FOLDER/.$NAME.node-port-range
    LOCK=$FOLDER/.$NAME.node-port-range.lock
  fi
  STATE=$BACKUP/node-port-range
  if [ ! -r "$MANIFEST" ]; then refuse "$MANIFEST cannot be read"; fi
  VALUE=$RANGE
  inspect "$MANIFEST" || refuse "$MANIFEST: $REASON"
  if [ "$APISERVER" != yes ]; then refuse "$MANIFEST: no kube-apiserver container"; fi
}

started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20; }
# others PREFIX: the ids of other living processes with a file PREFIX.ID.START, where START is when the process was started, so
# that an id that has come round again is not taken for it. What the dead (a kill, lost power) left behind is swept away.
others() {
  for left in "$1".[0-9]*.*; do
    [ -e "$left" ] || continue
    owner=${left#"$1".}
    since=${owner#*.}
    owner=${owner%%.*}
    if [ "$owner" = "$$" ]; then continue; fi
    if [ "$(started_at "$owner")" = "$since" ] && kill -0 "$owner" 2>/dev/null; then printf '%s\n' "$owner"; else rm -rf "$left" 2>/dev/null; fi
  done
}
# A run puts its claim down and holds the lock if it then sees no other claim: of two runs at least one sees the other's. Of
# several that wait, the one with the lowest id keeps its claim and the others come back later.
lock() {
  HELD_LOCK=$LOCK.$$.$(started_at $$)
  waited=0
  while :; do
    { : >"$HELD_LOCK"; } 2>/dev/null || refuse "cannot write $HELD_LOCK; nothing was changed"
    rivals=$(others "$LOCK")
    if [ -z "$rivals" ]; then break; fi
    first=$(printf '%s\n' "$rivals" | sort -n | sed -n 1p)
    if [ "$waited" -ge "$TIMEOUT" ]; then refuse "another run (process $first) holds $LOCK.*; wait for it or stop it"; fi
    if [ "$waited" = 0 ]; then note "waiting for another run (process $first)"; fi
    if [ "$first" -lt "$$" ]; then rm -f "$HELD_LOCK"; fi
    waited=$((waited + 1))
    sleep 1
  done
  # What a run that was killed left behind.
  rm -f "$TEMP" "$STATE"/*.tmp "$BACKUP"/*.tmp
  others "$WORK_PREFIX" >/dev/null
  step lock
}
