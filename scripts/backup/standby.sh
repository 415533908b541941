#!/bin/sh
# The standby: a second volume on another node that follows the snapshots. Read by home.sh, whose functions it uses; its commands
# are home.sh's `standby...`, see `usage` there. The pod jenkins-standby and `npm run failover` (cli/failover) call them.
#
# What a volume is stands in the volume itself, and goes with it from node to node:
#   MARK there       a standby: "whole SNAPSHOT TAKEN COMPARED", or "updating ..." from before the first change to after the last check
#   MARK not there   a home, or nothing yet. A home is never written to by a standby: one that was left at a failover is as it was
# Whoever writes to a volume, Jenkins (by the container home-fence beside it) or this, holds the lock LOCK of its file system for
# as long as it runs. The kernel of the volume's node gives it to one of them at a time and takes it from one that ended, whatever
# the cluster knows or believes of either.
MARK=.standby
LOCK=.home-fence
# Which failover made a home of this standby, and what its Jenkins must list.
MADE_BY=.standby-made-home
LISTED=.standby-inventory

# Waits until no Jenkins and no other standby writes to $1; held until this process has ended.
hold() {
  exec 9>>"$1/$LOCK"
  waited=0
  until flock -n 9; do
    [ "$waited" -lt "${LOCK_SECONDS:-300}" ] || fail "a controller, or another standby, still writes to this volume after $waited s" "end it, or switch its node off"
    [ "$waited" -gt 0 ] || say "this volume is still written to; waiting for the end of that"
    waited=$((waited + 1))
    sleep 1
  done
}

# On the disk before anything that relies on it.
mark() {
  printf '%s\n' "$2" >"$1/$MARK.new"
  flush "$1/$MARK.new"
  mv -f "$1/$MARK.new" "$1/$MARK"
  flush "$1"
}
flush() { sync "$1" 2>/dev/null || sync; }

# What volume $1 is, in $role: standby, home or empty; of a standby its $state, snapshot $held, when that was $taken, and the
# upkeep after which all of it was $compared.
look() {
  [ -d "$1" ] || fail "the folder $1 is missing"
  state='' held='' taken='' compared=''
  if [ -s "$1/$MARK" ]; then
    role=standby
    read -r state held taken compared <"$1/$MARK"
  elif [ -n "$(find "$1" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name "$LOCK" ! -name "$MARK.new" | head -n 1)" ]; then
    role=home
  else
    role=empty
  fi
}

# A field of the last good backup, which the cluster keeps; nothing where there is none.
of_backup() {
  [ ! -s "${STATUS_DIR:-/nonexistent}/last-good-backup" ] || field "$1" <"$STATUS_DIR/last-good-backup"
}

# Whether snapshot $2, and the keys where standby $1 gets them, can be read; restic's words, where not, are in open.err. Leaves in
# $how whether all files are to be compared, as after each $upkeep, and something in $keyless where the keys are to come.
reachable() {
  upkeep=$(of_backup upkeep)
  how=if-changed
  [ -n "$compared" ] && [ "$compared" = "${upkeep:-never}" ] || how=always
  keys_sum=$(cd "$1" && sum_of_keys) keyless=''
  [ "$how" != always ] && [ -n "$keys_sum" ] && [ "$keys_sum" = "$(of_backup keys)" ] || keyless=yes
  home_restic snapshots --no-lock --json "$2" >"$WORK_DIR/open.out" 2>"$WORK_DIR/open.err" || return 1
  grep -q '"short_id"' "$WORK_DIR/open.out" || {
    echo "snapshot $2 is not in the repository" >"$WORK_DIR/open.err"
    return 1
  }
  [ -z "$keyless" ] || key_restic snapshots --no-lock --json --host "$HOST" --tag keys >/dev/null 2>"$WORK_DIR/open.err"
}

# Makes standby $1 as snapshot $2 is. Files whose size and time are the snapshot's are left alone; once after each upkeep the content
# of all of them is compared. What was written is read back.
bring() {
  began=$(date +%s)
  # One that is whole stays so for as long as nothing is changed.
  reachable "$1" "$2" || fail "the standby could not be brought to snapshot $2: $(said "$WORK_DIR/open.err")" "it stays as it is; its update is begun again by itself"
  former="$state $held $taken $compared" ended=0
  mark "$1" "updating $2 $3 ${compared:-never}"
  home_restic restore "$2" --json --host "$HOST" --tag home --target "$1" --overwrite "$how" --delete --verify \
    --exclude "/$MARK*" --exclude "/$LOCK" --exclude /secrets/master.key --exclude /secret.key --exclude /lost+found --exclude "/$STAGED_KEYS" \
    >"$WORK_DIR/standby.out" 2>"$WORK_DIR/standby.err" || ended=$?
  # No repository, its lock, a wrong password: restic had not begun yet.
  case "$state:$ended" in ?*:1[012]) mark "$1" "$former" ;; esac
  [ "$ended" = 0 ] ||
    fail "the standby could not be brought to snapshot $2: $(said "$WORK_DIR/standby.err")" "its update is begun again by itself; until it has come to its end a failover has to finish it"
  # shellcheck disable=SC2034  # `number` reads it.
  summary=$(grep '"message_type":"summary"' "$WORK_DIR/standby.out" | tail -n 1)
  # Those that were left alone are counted apart.
  expected=$(($(number total_files) + $(number files_skipped)))
  found=$(find "$1" -mindepth 1 \( -path "$1/$MARK*" -o -path "$1/$LOCK" -o -path "$1/lost+found" -o -path "$1/$STAGED_KEYS" -o -path "$1/secrets/master.key" -o -path "$1/secret.key" \) -prune -o -print | wc -l)
  [ "$found" = "$expected" ] || fail "snapshot $2 holds $expected files and folders, the standby $found" "see the log of the pod"
  if [ -n "$keyless" ]; then
    rm -rf "${1:?}/$STAGED_KEYS"
    restore_keys "$1/$STAGED_KEYS" "$2"
    put_keys "$1"
  fi
  examine "$1" >"$WORK_DIR/standby.counts"
  (inventory "$1") >"$1/$LISTED"
  sync
  mark "$1" "whole $2 $3 ${upkeep:-never}"
  state=whole held=$2 taken=$3
  seconds=$(($(date +%s) - began))
  say "the standby is as snapshot $2: $(number bytes_restored) bytes written, $(number files_deleted) files and folders deleted, all others $([ "$how" = always ] && echo compared || echo 'left alone'), in $seconds s"
}

# Runs at the end of `standby`. What is the same as before is not told again: this runs every few seconds.
tell() {
  code=$?
  case "$code:$role" in
  0:standby) state=ok ;;
  *:home) state=former ;;
  *) state=failed ;;
  esac
  message=$(printf '%s' "${FAILURE:-}" | tr -d '"\\\n\t' | cut -c 1-600)
  if [ "$code" = 0 ] || [ "$message" != "$(cat "$WORK_DIR/standby.told" 2>/dev/null)" ]; then
    printf '{"status":"%s","time":"%s","seconds":%d,"snapshot":"%s","taken":"%s","deleted":%d,"bytes":%d,"items":%d,"builds":%d,"message":"%s"}\n' \
      "$state" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "${seconds:-0}" "$held" "$taken" "$(number files_deleted)" "$(number bytes_restored)" "${items:-0}" "${builds:-0}" "$message" >"$RESULT_FILE.new"
    mv -f "$RESULT_FILE.new" "$RESULT_FILE"
    printf '%s' "$message" >"$WORK_DIR/standby.told"
  fi
}

# Whether the published status lacks what the standby is, such as after somebody wrote over it. The pod sees a minute later what was published.
untold() {
  [ "$(field snapshot <"${STATUS_DIR:-/nonexistent}/last-good-standby" 2>/dev/null)" != "$held" ] && [ -z "$(find "$RESULT_FILE" -mmin -3 2>/dev/null)" ]
}

# The standby $1 follows the last good backup, once.
standby() {
  role='' held='' taken=''
  wanted=$(of_backup snapshot)
  look "$1"
  if [ "$role" = standby ] && [ "$state $held" = "whole $wanted" ]; then
    untold || return 0
    trap tell EXIT
    examine "$1" >"$WORK_DIR/standby.counts"
    return 0
  fi
  [ "$role" = home ] || [ -n "$wanted" ] || return 0
  trap tell EXIT
  [ "$role" != home ] || fail "the volume of the standby holds the former home, which is kept as it was" "once nothing of it is needed any more: npm run failover -- STACK --renew"
  hold "$1"
  role=standby
  bring "$1" "$wanted" "$(of_backup time)"
}

# Makes a home of standby $1, as snapshot $2, for failover $3; $4 = home: one that is a home already is meant; $4 = exact: an older
# snapshot will not do. Run again it finds it done.
standby_take() {
  look "$1"
  if [ "$role" = home ]; then
    [ "${4:-}" = home ] || [ "$(cat "$1/$MADE_BY" 2>/dev/null)" = "$3" ] ||
      fail "the volume of the standby holds the former home, which is kept as it was" "npm run failover -- STACK --renew makes a standby of it again"
    say "it is a home already"
    return 0
  fi
  [ "$role" = standby ] || fail "the standby is empty: it was never brought up to date"
  hold "$1"
  if [ "$state $held" != "whole $2" ]; then
    if reachable "$1" "$2"; then
      bring "$1" "$2" "$(of_backup time)"
    elif [ "${4:-}" = exact ]; then
      fail "snapshot $2, with which Jenkins was stopped, cannot be read: $(said "$WORK_DIR/open.err")" "mend the way to the repository and run npm run failover again, or go back to the node that has it by --to"
    elif [ "$state" = whole ]; then
      say "warning: the repository cannot be reached ($(said "$WORK_DIR/open.err")), so the standby is taken as it is, as snapshot $held of $taken; the last one was $2"
    else
      fail "the standby was cut off in the middle of an update, and the repository cannot be reached to finish it: $(said "$WORK_DIR/open.err")" "mend the way to the repository and run npm run failover again"
    fi
  fi
  printf '%s\n' "$3" >"$1/$MADE_BY"
  # Run again after a cut it has been moved.
  [ ! -e "$1/$LISTED" ] || mv -f "$1/$LISTED" "$1/.restore-inventory"
  flush "$1"
  rm -f "$1/$MARK"
  flush "$1"
  say "the standby, as snapshot $held of $taken, is the home now"
}

# Waits until nobody writes to home $1 any more: a Jenkins whose pod was given up while its node was silent goes on until it hears of that.
standby_wait() {
  look "$1"
  [ "$role" != home ] || hold "$1"
  say "nobody writes to this home any more"
}

# Prints what of home $1 no snapshot has and nobody makes again: what a restore of a job put aside, and what backup.excludes leaves out.
beyond_backups() {
  [ -z "$(ls -A "$1/.replaced" 2>/dev/null)" ] || echo .replaced
  sed '1,/^# backup\.excludes$/d' "${EXCLUDES_FILE:-/dev/null}" | while IFS= read -r pattern; do
    find "$1" -path "$1/$(printf '%s' "${pattern%/}" | sed 's|/\*\*/|/*|g')" -print | sed -n "1s|^$1/||p"
  done
}

# Makes a standby of home $1, which snapshot $2 holds; one that has what no snapshot has stays as it is.
standby_give() {
  look "$1"
  [ "$role" = home ] || return 0
  hold "$1"
  beyond=$(beyond_backups "$1" | tr '\n' ' ')
  if [ -n "$beyond" ]; then
    say "warning: this home is kept as it is, for it has what backups leave out: $beyond"
    return 0
  fi
  (inventory "$1") >"$1/$LISTED"
  rm -f "$1/$MADE_BY"
  mark "$1" "whole $2 $3 never"
  say "the former home is the standby now"
}

# Makes a standby of whatever volume $1 holds: it is brought to the newest snapshot, and what it alone has goes.
standby_renew() {
  look "$1"
  [ "$role" = home ] || return 0
  hold "$1"
  rm -f "$1/$MADE_BY"
  mark "$1" "updating none none never"
  say "the volume is the standby again, and is brought up to date"
}
