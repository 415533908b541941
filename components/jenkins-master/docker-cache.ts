/**
 * What Docker keeps between builds on a node.
 *
 * Below `docker/GROUP/` each slot is a data folder of dockerd. Exactly one agent holds one at a time, by a lock on `slot-N.lock` that
 * ends with the last process that has it open, however that ends. Its next holder finds content, and nothing by name: layers, configs
 * of images and BuildKit's cache stay, which are found by what they are; tags, containers, volumes and networks are gone before the
 * daemon starts, so that a name means to every build what its registry says. A slot whose daemon did not end in order is thrown away.
 *
 * `slot-N/clean` says of which dockerd the data are, and until when they can be trusted: `synced`, or the boot of the node that may
 * still have them in memory alone.
 */

/**
 * Runs in the privileged sidecar in place of the image's entry point, which it starts, with dockerd's arguments. Whatever is wrong with a
 * slot, the daemon comes up: with an empty one, or at last on the pod's own volume.
 * POSIX shell as in BusyBox, flock; environment SLOTS; KEPT_KIB, of all slots of the group together, and MAX_KIB, of this one while it
 * is in use, may be unset, as may START_SECONDS and WATCH_SECONDS.
 */
export const dockerSlotScript = `root=/var/lib/docker
slot= daemon= stopping=
say() { echo "docker cache: $*"; }
version=$(dockerd --version)
read -r boot </proc/sys/kernel/random/boot_id
mark() { echo "$version $1" >"$slot/.clean" && mv "$slot/.clean" "$slot/clean"; }
throw_away() { mv "$slot" "$SLOTS/.trash-\${slot##*/}-$(date +%s)-$1"; }
# The lock is held by whoever has file 9 open: this shell, dockerd and what it starts for itself.
take() {
  number=0
  while [ "$number" -lt 100 ] && touch "$SLOTS/slot-$number.lock"; do
    exec 9>"$SLOTS/slot-$number.lock"
    if flock -n 9; then slot=$SLOTS/slot-$number; return; fi
    number=$((number + 1))
  done
  return 1
}
# Only what is found by its content stays.
strip() (
  cd "$slot/data" || exit
  for each in * .[!.]*; do
    case $each in image | overlay2 | buildkit) ;; *) rm -rf -- "$each" || exit ;; esac
  done
  for layer in image/overlay2/layerdb/mounts/*/; do
    for id in "$layer"mount-id "$layer"init-id; do
      if [ -s "$id" ]; then
        # A container that was half removed has no link any more, and all the others' lie beside it.
        link=$(cat "overlay2/$(cat "$id")/link" 2>/dev/null)
        if [ -n "$link" ]; then rm -f "overlay2/l/$link" || exit; fi
        rm -rf "overlay2/$(cat "$id")" || exit
      fi
    done
  done
  # BuildKit's history names former builds and their arguments.
  rm -rf image/overlay2/repositories.json image/overlay2/layerdb/mounts image/overlay2/layerdb/tmp buildkit/history*.db
)
prepare() {
  clean=$(cat "$slot/clean" 2>/dev/null)
  rm -f "$slot/clean"
  if [ -e "$slot" ]; then
    if { [ "$clean" = "$version $boot" ] || [ "$clean" = "$version synced" ]; } && strip; then
      say "\${slot##*/}, as the last agent left it"
    else
      say "\${slot##*/} was not left in order, or is another version's: begun anew"
      throw_away 0 || return
    fi
  fi
  mkdir -p "$slot/data" && mount -o bind "$slot/data" "$root"
}
up() { docker --host=unix:///var/run/docker.sock version >/dev/null 2>&1; }
# Until the daemon serves; false where it ended before, or takes longer than a daemon with all its data may.
serve() {
  [ -z "$stopping" ] || exit 143
  dockerd-entrypoint.sh "$@" &
  daemon=$! waited=0
  until up; do
    kill -0 "$daemon" 2>/dev/null || [ -n "$stopping" ] || return
    [ -z "$stopping" ] || return 0
    if [ "$waited" -ge "\${START_SECONDS:-60}" ]; then kill -9 "$daemon" $(cat /var/run/docker.pid) 2>/dev/null; return 1; fi
    waited=$((waited + 1))
    sleep 1
  done
}
measure() { du -sk "$slot/data" 2>/dev/null | cut -f1; }
# As the kubelet measures a volume of the pod's own: what was there before this agent is not its doing.
watch() {
  inherited=$(measure)
  while sleep "\${WATCH_SECONDS:-60}"; do
    used=$(measure)
    echo "$used" >"$slot/used"
    if [ -n "\${MAX_KIB:-}" ] && [ "$((used - inherited))" -gt "$MAX_KIB" ]; then
      say "$((used - inherited)) KiB of images, containers and layers are more than dockerSize, $MAX_KIB KiB: the daemon ends"
      kill "$daemon"
    fi
  done
}
# What was not used for longest goes, while nobody builds any more: BuildKit knows it of its cache, dockerd when an image was last named.
trim() {
  set -- "$SLOTS"/slot-*/data
  share=$((KEPT_KIB / $#))
  [ "$(cat "$slot/used" 2>/dev/null || echo 0)" -gt "$share" ] || return
  say "keeps $share KiB"
  export DOCKER_HOST=unix:///var/run/docker.sock DOCKER_BUILDKIT=0
  docker ps -aq | xargs -r docker rm -fv
  docker builder prune -f --keep-storage="$((share / 2))k"
  docker image ls -aq --no-trunc | sort -u | xargs -r docker image inspect -f '{{.Metadata.LastTagTime}} {{.Id}}' | sort | sed 's/.* //' | while read -r image; do
    if [ "$(measure)" -le "$share" ]; then break; fi
    docker image rm -f "$image"
  done
} >/dev/null 2>&1
stop() {
  stopping=yes
  if [ -n "\${KEPT_KIB:-}" ] && [ -n "$slot" ] && up; then
    # Of the pod's 30 seconds dockerd needs some.
    trim &
    trimming=$!
    { sleep 12; kill "$trimming"; } 2>/dev/null &
    wait "$trimming"
  fi
  kill "$daemon" 2>/dev/null
}
trap stop TERM INT
# By name, so that on a disk that does not do for it dockerd takes no other driver, whose layers strip() does not know.
if take; then
  if prepare && serve "$@" --storage-driver=overlay2; then :
  elif [ -z "$stopping" ]; then
    say "dockerd does not start with \${slot##*/}: begun anew"
    wait "$daemon" 2>/dev/null
    umount "$root" 2>/dev/null
    if throw_away 1 && prepare && serve "$@" --storage-driver=overlay2; then :
    elif [ -z "$stopping" ]; then
      say "dockerd does not start with an empty one either: nothing is kept of this agent"
      wait "$daemon" 2>/dev/null
      umount "$root" 2>/dev/null
      slot=
      serve "$@"
    fi
  fi
else
  say "no slot in $SLOTS can be had: nothing is kept of this agent"
  serve "$@"
fi
[ -z "$slot" ] || watch 9>&- &
watching=$!
wait "$daemon"
code=$?
# A signal ends the waiting, not the daemon.
while kill -0 "$daemon" 2>/dev/null; do wait "$daemon"; code=$?; done
kill "$watching" 2>/dev/null
if [ -n "$slot" ] && [ -n "$stopping" ] && [ "$code" -eq 0 ]; then mark "$boot" && sync -f "$slot/data" && mark synced; fi
# A daemon that ended though nobody told this container to.
[ -n "$stopping" ] || [ "$code" -ne 0 ] || code=1
exit "$code"
`;

/**
 * Runs on every node as container `docker` of the DaemonSet `agent-cache`: throws away slots that nobody holds, the one that was taken
 * longest ago first, until the rest is below MAX_KIB, and deletes what agents threw away.
 * Bash, GNU coreutils, flock; environment CACHE, MAX_KIB, INTERVAL (seconds).
 */
export const dockerKeeperScript = `set -u
shopt -s nullglob
trap 'exit 0' TERM INT
mkdir -p "$CACHE/docker" && cd "$CACHE/docker" || exit
# No slash behind a name: what agents may write to may have become a link meanwhile.
while :; do
  for trash in */.trash-*; do rm -rf "$trash"; done
  slots=(*/slot-*[0-9])
  used=0
  if [ "\${#slots[@]}" -gt 0 ]; then
    used=$(du -skc "\${slots[@]}" 2>/dev/null | tail -n 1 | cut -f1)
    while IFS= read -r lock && [ "$used" -gt "$MAX_KIB" ]; do
      slot=\${lock%.lock} trash="\${lock%/*}/.trash-keeper-$(date +%s%N)"
      size=$(du -sk "$slot" 2>/dev/null | cut -f1)
      [ -e "$slot" ] && flock -n "$lock" mv -T "$slot" "$trash" || continue
      echo "Docker's data take $used KiB of $MAX_KIB: $slot, $size KiB, is thrown away"
      rm -rf "$trash"
      used=$((used - size))
    done < <(ls -tr */slot-*.lock)
  fi
  sleep "$INTERVAL" & wait $!
done
`;
