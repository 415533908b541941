#!/bin/sh
# Backs up, checks and restores a jenkins_home with restic. Runs in pods of the restic image (busybox is enough);
# needs restic 0.17 or later. Usage: home.sh COMMAND [ARGUMENT...], see `usage` below.
#
# Who calls it: the pods of the CronJobs and of an empty controller (components/jenkins-backup), and the jobs that
# `npm run backup`, `backups` and `restore` make of these CronJobs (cli/backup). report.sh publishes what it leaves.
#
# Why a live copy is consistent: Jenkins replaces its XML files and nextBuildNumber by rename, raises nextBuildNumber
# before it makes the build's folder, and restic lists `builds` before it opens `nextBuildNumber` (names are walked
# in order). So a snapshot's nextBuildNumber is always ahead of the builds in it. This is not taken on trust: every
# snapshot is examined, and taken again where it does not hold.
#
# Why one restic process is enough for most backups (each of them derives its key anew, half a second to one second, and
# reads the index): restic reports every file and folder of the snapshot while it makes it. With the numbers that were read
# from the home before, this tells which jobs hold: restic opened their number after that, and numbers only grow. The
# numbers of the others are read back from the snapshot. What need not happen each time is the upkeep: all numbers read
# back, the repository's check, the keys' repository opened, retention and pruning.
set -eu

usage() {
  cat <<'TEXT'
home.sh COMMAND [ARGUMENT...]
  backup                         snapshot of HOME_DIR, examined, with the upkeep where that is due; result in RESULT_FILE
  snapshots                      one line of JSON
  diff SNAPSHOT SNAPSHOT         what changed between two snapshots
  restore SNAPSHOT DIR           the whole home and its keys into DIR, every byte read back
  start-from SNAPSHOT DIR        the same into the empty DIR of a controller that never ran; one that holds anything is left alone
  has-job SNAPSHOT JOB           whether a snapshot holds a job
  restore-job SNAPSHOT JOB DIR   one job of a stopped home, the present one is put aside in DIR/.replaced
  examine DIR                    job and build counts, and whether build numbers hold
  inventory DIR                  every job, and the numbers of its complete builds, one a line
  standby DIR                    brings the standby to the last good backup, where it is not there yet; result in RESULT_FILE
  standby-take DIR SNAPSHOT ID [home | exact]   makes a home of the standby, as that snapshot; ID names the failover
  standby-wait DIR               waits until nobody writes to the home
  standby-give DIR SNAPSHOT TIME makes a standby of the home, all of which that snapshot holds
  standby-renew DIR              makes a standby of a former home, whatever it has that no snapshot has
Environment
  RESTIC_REPOSITORY_FILE RESTIC_PASSWORD_FILE   the repository of the home
  KEY_REPOSITORY_FILE KEY_PASSWORD_FILE         the repository of the encryption keys, under its own password
  HOME_DIR        default /var/jenkins_home
  WORK_DIR        scratch folder and restic's cache, default /tmp
  RESULT_FILE     where `backup` leaves its result as JSON, default WORK_DIR/result.json
  EXCLUDES_FILE   one pattern a line, relative to HOME_DIR
  KEEP_LAST KEEP_DAILY KEEP_WEEKLY KEEP_MONTHLY retention; at least one is set
  UPKEEP_DAYS     days between two upkeeps, default 7; 0: with each backup
  UPKEEP          1: with this backup
  CHECK_PARTS     days of upkeep in which all of the repository's data is read back, a part each time; default 14
  UPLOAD_LIMIT DOWNLOAD_LIMIT   KiB/s, default 0 (none)
  MEMORY_LIMIT    bytes that this container may use; restic keeps below nine tenths of it where it can
  STATUS_DIR      folder of the last results; where it names a snapshot, a missing repository is an error
  SFTP_COMMAND KEY_SFTP_COMMAND  how the SFTP servers are reached, with key and known hosts
  TRIES_PAUSE     seconds between two words of a target that does not answer, default 60
  LEAVING_IMAGE   image that the controller is about to leave: the snapshot is kept for as long as none was made later as it was left
  ACCEPT_SHRINK   1: retention goes on although most jobs are gone since the last snapshot
TEXT
}

HOME_DIR=${HOME_DIR:-/var/jenkins_home}
WORK_DIR=${WORK_DIR:-/tmp}
RESULT_FILE=${RESULT_FILE:-$WORK_DIR/result.json}
# All snapshots carry one host name: the pod that makes them has another name each time.
HOST=jenkins
# Longest first pass in seconds whose files are close enough in time; a longer one is followed by a short one.
SETTLE=60
export RESTIC_CACHE_DIR="${RESTIC_CACHE_DIR:-$WORK_DIR/restic-cache}"
[ -z "${MEMORY_LIMIT:-}" ] || export GOMEMLIMIT="$((MEMORY_LIMIT * 9 / 10))"
export RESTIC_PROGRESS_FPS=0.1
# Names are bytes.
export LC_ALL=C
# Times of snapshots are compared as text.
export TZ=UTC
# Left in a home that start-from has begun to fill.
UNFINISHED=.start-from-unfinished
# In the folder that is restored to, until its keys are put where they belong.
STAGED_KEYS=.restore-keys

say() { echo "$(date -u +%H:%M:%S) $*"; }
# $1 what happened, $2 (optional) what to do
fail() {
  FAILURE="$1"
  echo "home.sh: $1" >&2
  [ $# -lt 2 ] || {
    FAILURE="$1; $2"
    echo "  $2" >&2
  }
  exit 1
}
limited_restic() { restic --limit-upload "${UPLOAD_LIMIT:-0}" --limit-download "${DOWNLOAD_LIMIT:-0}" "$@"; }
home_restic() { limited_restic ${SFTP_COMMAND:+-o "sftp.command=$SFTP_COMMAND"} "$@"; }
key_restic() {
  RESTIC_REPOSITORY_FILE=$KEY_REPOSITORY_FILE RESTIC_PASSWORD_FILE=$KEY_PASSWORD_FILE \
    limited_restic ${KEY_SFTP_COMMAND:+-o "sftp.command=$KEY_SFTP_COMMAND"} "$@"
}
# Background priority for this shell and every restic it starts, as far as the tools are there and allowed.
if [ -z "${HOME_SH_GENTLE:-}" ] && { [ "${1:-}" = backup ] || [ "${1:-}" = standby ]; }; then
  export HOME_SH_GENTLE=1
  gentle=
  ! nice -n 19 true 2>/dev/null || gentle="nice -n 19"
  ! ionice -c 3 true 2>/dev/null || gentle="$gentle ionice -c 3"
  exec $gentle sh "$0" "$@"
fi

# What restic said in a file, as one line: its error, for the last line is often the repository's address only. With --json the
# error is the message of one.
said() { { grep -m 1 '^Fatal' "$1" || grep -v '^$' "$1" | tail -n 1; } | sed -e 's/^{"message_type":"exit_error".*"message":"\(.*\)"}$/\1/' -e 's/\\n.*//' | cut -c 1-300; }

# $1 name of the repository for people; restic's words are in open.err. Fails if it was the password.
no_wrong_password() {
  ! grep -qi 'wrong password\|no key found' "$WORK_DIR/open.err" ||
    fail "wrong password for the $1 repository" "give it the password that it was made with (pulumi config set --secret), or another repository"
}

# $1 = home_restic or key_restic, $2 its name for people. Leaves the list of snapshots in $snapshots, as JSON; makes the
# repository where nothing is there yet. Of one that may be new, making it is tried first, which restic refuses at once where
# there is one: it would ask a bucket that is not there for its list for a quarter of an hour.
open_repository() {
  if [ ! -s "${STATUS_DIR:-/nonexistent}/snapshot" ] && "$1" init >/dev/null 2>"$WORK_DIR/init.err"; then
    say "made the $2 repository"
    snapshots='[]'
    return
  fi
  if snapshots=$("$1" snapshots --no-lock --json --host "$HOST" 2>"$WORK_DIR/open.err"); then return; fi
  problem=$(said "$WORK_DIR/open.err")
  no_wrong_password "$2"
  # A share that is not mounted looks like an empty folder; a new repository there would hide the loss.
  [ ! -s "${STATUS_DIR:-/nonexistent}/snapshot" ] || fail "the $2 repository is gone, or cannot be reached: $problem" \
    "snapshot $(cat "$STATUS_DIR/snapshot") was saved before, so no new one is made; for a new repository on purpose: kubectl -n NAMESPACE delete configmap jenkins-backup-status && pulumi up --refresh"
  fail "the $2 repository cannot be opened: $problem" "nor made: $(said "$WORK_DIR/init.err")"
}

# Value of a number or plain string of one JSON line on stdin: field NAME
field() { sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p" | tail -n 1; }

# A number of the last pass' summary, 0 where there is none
number() {
  value=$(echo "$summary" | field "$1")
  echo "${value:-0}"
}

# One walk through the jobs of folder $1. Leaves the numbers of jobs and folders and of complete builds in $items and
# $builds, and in WORK_DIR "JOB<tab>NUMBER" of each nextBuildNumber as `numbers`, "JOB<tab>NUMBER" of each job's newest
# build as `newest`; jobs as paths below $1 that begin with a slash.
walk() {
  : >"$WORK_DIR/numbers" && : >"$WORK_DIR/newest"
  items=0 builds=0
  [ -d "$1/jobs" ] || return 0
  # What lies in a build's folder is not walked through.
  (
    cd "$1"
    find jobs \( -name workspace -o -path '*/builds/[0-9]*/*' ! -name build.xml \) -prune -o \
      \( -path '*/builds/[0-9]*' -o -type f \( -name config.xml -o -name nextBuildNumber \) \) -print |
      awk -v numbers="$WORK_DIR/numbers" -v newest="$WORK_DIR/newest" '
        /\/config\.xml$/ { items++; next }
        /\/builds\/[^\/]*\/build\.xml$/ { builds++; next }
        /\/nextBuildNumber$/ {
          number = ""
          getline number <$0
          close($0)
          gsub(/[^0-9]/, "", number)
          print "/" substr($0, 1, length($0) - 16) "\t" number >numbers
          next
        }
        match($0, /\/builds\/[0-9]+$/) {
          job = substr($0, 1, RSTART - 1); number = substr($0, RSTART + 8) + 0
          if (number > last[job]) last[job] = number
        }
        END {
          for (job in last) print "/" job "\t" last[job] >newest
          print items + 0, builds + 0
        }' >"$WORK_DIR/counts"
  )
  read -r items builds <"$WORK_DIR/counts"
}

# Prints each job of file $1 ("JOB<tab>NEWEST BUILD") whose number in file $2 ("JOB<tab>NUMBER") is not ahead of it.
behind() {
  awk -F '\t' -v numbers="$2" '
    BEGIN { while ((getline line < numbers) > 0) { n = split(line, part, "\t"); if (n == 2) next_of[part[1]] = part[2] + 0 } }
    $1 in next_of && next_of[$1] <= $2 + 0 { print $1 ": nextBuildNumber " next_of[$1] ", newest build " $2 }' "$1"
}

# Reads numbers of snapshot $1 back into WORK_DIR/numbers: all of them, or those that the further words choose.
read_back() {
  rm -rf "$WORK_DIR/examine"
  [ $# -gt 1 ] || set -- "$1" --include nextBuildNumber
  home_restic restore "$@" --target "$WORK_DIR/examine" >/dev/null
  walk "$WORK_DIR/examine" && rm -rf "$WORK_DIR/examine"
}

# Prints what is wrong with the build numbers of snapshot $1, all of which is read back.
examine_snapshot() {
  read_back "$1"
  home_restic ls "$1" | awk '
    match($0, /\/builds\/[0-9]+$/) {
      job = substr($0, 1, RSTART - 1); number = substr($0, RSTART + 8) + 0
      if (number > last[job]) last[job] = number
    }
    END { for (job in last) print job "\t" last[job] }' >"$WORK_DIR/newest"
  behind "$WORK_DIR/newest" "$WORK_DIR/numbers"
}

# stdin: what restic reports of a snapshot that it makes, as JSON. Passes on what is not about single files, and leaves in file
# $1 "JOB<tab>NEWEST BUILD<tab>NEWEST BUILD THAT THE PARENT LACKS<tab>ACTION" of each job, where ACTION is what restic did with
# its nextBuildNumber: new, modified or unchanged; nothing where there is none. Names that JSON has to escape leave a "?".
condense() {
  awk -v report="$1" '
    substr($0, 18, 14) != "verbose_status" { print; next }
    {
      end = index($0, "\",\"duration\":")
      kind = substr($0, end - 1, 1) == "/" ? "build" : substr($0, end - 16, 16) == "/nextBuildNumber" ? "number" : ""
      if (kind == "") next
      start = index($0, "\",\"item\":\"")
      action = substr($0, 44, start - 44)
      path = substr($0, start + 10, end - start - 10)
      if (kind == "build" && !match(path, /\/builds\/[0-9]+\/$/)) next
      if (index(path, "\\")) { odd = 1; next }
      if (kind == "number") { did[substr(path, 1, length(path) - 16)] = action; next }
      job = substr(path, 1, RSTART - 1); number = substr(path, RSTART + 8, RLENGTH - 9) + 0
      if (number > last[job]) last[job] = number
      if (action == "new" && number > added[job]) added[job] = number
    }
    END {
      if (odd) print "?" >report
      for (job in last) print job "\t" last[job] "\t" added[job] + 0 "\t" did[job] >report
    }'
}

# Prints what is wrong with the build numbers of snapshot $1, whose parent is a good one, by restic's report of it in
# WORK_DIR/report and the numbers that the home had before in WORK_DIR/before. In doubt is a job whose number then was not ahead of the snapshot's newest build,
# and one with a new build whose number restic took over from the parent: these are read back.
examine_report() {
  if grep -qx '?' "$WORK_DIR/report"; then
    examine_snapshot "$1"
    return
  fi
  awk -F '\t' -v before="$WORK_DIR/before" '
    BEGIN { while ((getline line < before) > 0) { n = split(line, part, "\t"); next_of[part[1]] = part[2] + 0 } }
    $4 != "" && (next_of[$1] + 0 <= $2 + 0 || ($3 == $2 && $4 == "unchanged")) { print $1 "\t" $2 }' "$WORK_DIR/report" >"$WORK_DIR/doubtful"
  [ -s "$WORK_DIR/doubtful" ] || return 0
  # restic takes a line as a pattern.
  sed 's/\t[0-9]*$//; s/[][*?\\]/\\&/g; s/\$/$$/g; s|$|/nextBuildNumber|' "$WORK_DIR/doubtful" >"$WORK_DIR/wanted"
  read_back "$1" --include-file "$WORK_DIR/wanted"
  behind "$WORK_DIR/doubtful" "$WORK_DIR/numbers"
}

# Beside a backup: says each minute what keeps restic, which asks a target that is gone for a quarter of an hour.
say_tries() {
  while sleep "${TRIES_PAUSE:-60}" >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
    for step in open backup forget; do
      last=$(tail -n 1 "$WORK_DIR/$step.err" 2>/dev/null | cut -c 1-300)
      case "$last" in *'retrying after'*) say "restic still tries: $last" ;; esac
    done
  done
}

# restic's report of the snapshot goes to WORK_DIR/report, the rest to backup.out; its exit code to $code. Nobody waits for
# an estimate, so the home is not walked for one.
save() {
  : >"$WORK_DIR/report" && echo 0 >"$WORK_DIR/code"
  {
    home_restic backup --json --verbose --no-scan --host "$HOST" --tag home --tag "items=$items" --tag "builds=$builds" ${keys_sum:+--tag "keys=$keys_sum"} \
      ${LEAVING_IMAGE:+--tag "image=$LEAVING_IMAGE" --tag "upgrade=$started"} ${parent:+--parent "$parent"} --exclude-file "$WORK_DIR/excludes" . 2>"$WORK_DIR/backup.err" || echo $? >"$WORK_DIR/code"
  } | condense "$WORK_DIR/report" >"$WORK_DIR/backup.out"
  code=$(cat "$WORK_DIR/code")
}

# Leaves "SNAPSHOT" in $snapshot and the summary line in $summary; returns 1 where files that exist could not be read.
one_pass() {
  save
  # restic itself goes on asking for a quarter of an hour: no need to begin that anew.
  [ "$code" != 1 ] || ! grep -q 'retrying after' "$WORK_DIR/backup.err" ||
    fail "the home repository is gone, or cannot be reached: $(said "$WORK_DIR/backup.err")" "earlier snapshots are as they were; mend the target and run the backup again"
  # Exit codes of a repository that is not there and of a wrong password; of others opening it says why, too.
  if [ "$code" != 0 ] && [ "$code" != 3 ] && [ "$opened" = no ]; then
    cp "$WORK_DIR/backup.err" "$WORK_DIR/first.err"
    open_repository home_restic home
    opened=yes
    # It is there now where it was made just now; and somebody may have taken the parent away.
    if [ "$code" = 10 ] || { [ -n "$parent" ] && grep -q "$parent" "$WORK_DIR/first.err"; }; then
      parent='' thorough=yes
      save
    else
      cp "$WORK_DIR/first.err" "$WORK_DIR/backup.err"
    fi
  fi
  summary=$(grep '"message_type":"summary"' "$WORK_DIR/backup.out" | tail -n 1 || true)
  snapshot=$(echo "$summary" | field snapshot_id | cut -c 1-8)
  # 3: a snapshot was made, but some files could not be read. One that vanished meanwhile (a build that Jenkins
  # deleted, a log that it rotated) is no loss; one that is still there is.
  if [ "$code" = 3 ] && [ -n "$snapshot" ]; then
    unreadable=$(grep '"message_type":"error"' "$WORK_DIR/backup.err" | sed -n 's/.*"item":"\(.*\)"}.*/\1/p' | while IFS= read -r item; do
      [ ! -e "$item" ] || echo "$item"
    done)
    [ -n "$unreadable" ] || return 0
    return 1
  fi
  if [ "$code" != 0 ] || [ -z "$snapshot" ]; then
    fail "restic could not make the snapshot (exit code $code): $(said "$WORK_DIR/backup.err")" \
      "earlier snapshots are as they were; if the target is full or gone, mend it and run the backup again"
  fi
}

# Which keys this home has now: the beginning of their hash, nothing where there is none yet. Every snapshot names the keys
# that it was written under.
sum_of_keys() {
  set --
  for file in secrets/master.key secret.key; do [ ! -f "$file" ] || set -- "$@" "$file"; done
  [ $# -eq 0 ] || cat "$@" | sha256sum | cut -c 1-16
}

# The keys are saved when they are not yet, and again should they ever change.
backup_keys() {
  open_repository key_restic key
  [ -n "$keys_sum" ] || {
    say "this home has no key yet"
    return 0
  }
  set --
  for file in secrets/master.key secret.key; do [ ! -f "$file" ] || set -- "$@" "$file"; done
  case "$snapshots" in *"\"sha256=$keys_sum\""*) return 0 ;; esac
  key_restic backup --quiet --host "$HOST" --tag keys --tag "sha256=$keys_sum" "$@" >"$WORK_DIR/keys.out" 2>&1 ||
    fail "the keys could not be saved: $(said "$WORK_DIR/keys.out")"
  say "saved the keys of this home"
}

# stdin: restic's list of snapshots as JSON. Lines "TIME ID" in its order, oldest first; the list nests in newer versions.
times_and_ids() { sed 's/{"time"/\n&/g' | sed -n 's/^{"time":"\([^"]*\)".*"short_id":"\([^"]*\)".*/\1 \2/p'; }

# stdin: the same list. Those that are dated later than five minutes from now: made while a clock was wrong, if it is not wrong now.
from_the_future() {
  limit=$(date -u -d "@$(($(date +%s) + 300))" +%Y-%m-%dT%H:%M:%S)
  times_and_ids | awk -v limit="$limit" 'substr($1, 1, 19) > limit'
}

# The snapshot that $1 stands for, of the list in $2: `latest` is the newest good one that is not from the future, where
# there is another.
resolve() {
  [ "$1" = latest ] || {
    echo "$1"
    return 0
  }
  times_and_ids <"$2" | sort >"$WORK_DIR/sorted"
  from_the_future <"$2" >"$WORK_DIR/future"
  awk -v later="$(tr '\n' ' ' <"$WORK_DIR/future")" '{ newest = $2 } index(later, $2) == 0 { sound = $2 } END { print sound != "" ? sound : newest }' "$WORK_DIR/sorted"
}

# Applies the retention to snapshots of tag $1. Locks that a killed run left are taken away once they are stale (30 min,
# restic's own rule); until then retention waits for the next run, which costs space only.
retain() {
  # It goes by the snapshots' times: while these are in doubt nothing is removed, which costs space only, too.
  doubtful=$(printf '%s\n' "$known" | from_the_future | head -n 1)
  if [ -n "$doubtful" ]; then
    note="retention postponed: snapshot ${doubtful#* } is dated ${doubtful%% *}, later than now; a clock was wrong then or is now"
    say "$note"
    return 0
  fi
  forget "$1" || { home_restic unlock >/dev/null 2>&1 && forget "$1"; } || {
    grep -qi lock "$WORK_DIR/forget.err" || fail "retention failed: $(said "$WORK_DIR/forget.err")" "the new snapshot is whole; run the backup again when the cause is mended"
    note="retention postponed: $(grep -i lock "$WORK_DIR/forget.err" | head -n 1 | cut -c 1-160)"
    say "$note"
  }
}

# Of the good snapshots in $known that were made as an image was left, the newest of each image: restic's option that keeps it, by the
# tag that it alone has.
kept_for_images() {
  printf '%s\n' "$known" | sed 's/{"time"/\n&/g' | awk '
    function tag(name) { return match($0, "\"" name "=[^\"]*\"") ? substr($0, RSTART + 1, RLENGTH - 2) : "" }
    /"suspect"/ { next }
    match($0, /"time":"[^"]*"/) {
      time = substr($0, RSTART + 8, RLENGTH - 9); image = tag("image"); upgrade = tag("upgrade")
      if (image != "" && upgrade != "" && time > newest[image]) { newest[image] = time; kept[image] = upgrade }
    }
    END { for (image in kept) print "--keep-tag " kept[image] }'
}

forget() {
  # shellcheck disable=SC2046 # options, whose tags are numbers
  home_restic forget --quiet --host "$HOST" --tag "$1" --group-by host ${KEEP_LAST:+--keep-last "$KEEP_LAST"} ${KEEP_DAILY:+--keep-daily "$KEEP_DAILY"} \
    ${KEEP_WEEKLY:+--keep-weekly "$KEEP_WEEKLY"} ${KEEP_MONTHLY:+--keep-monthly "$KEEP_MONTHLY"} ${LEAVING_IMAGE:+--keep-tag "upgrade=$started"} $(kept_for_images) --prune >/dev/null 2>"$WORK_DIR/forget.err"
}

# Runs at the end, however that comes. A snapshot that did not pass is taken out of "latest" and of retention.
write_result() {
  status=$?
  kill "$saying" 2>/dev/null || true
  if [ "$status" != 0 ] && [ -n "$snapshot" ] && [ "$proven" = no ] && ! mark_suspect; then
    FAILURE="${FAILURE:-stopped with exit code $status}; snapshot $snapshot could not be marked as suspect ($(said "$WORK_DIR/tag.err")): until it is, latest may mean it"
  fi
  [ "$status" = 0 ] && state=ok || state=failed
  message=$(printf '%s' "${FAILURE:-$note}" | tr -d '"\\\n\t' | cut -c 1-600)
  [ "$state" = ok ] || [ -n "$message" ] || message="stopped with exit code $status; see the log"
  printf '{"status":"%s","time":"%s","seconds":%d,"snapshot":"%s","files":%d,"bytes":%d,"added":%d,"items":%d,"builds":%d,"passes":%d,"place":"%s","keys":"%s","upkeep":"%s","checked":"%s","message":"%s"}\n' \
    "$state" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" $(($(date +%s) - started)) "$snapshot" "$(number total_files_processed)" \
    "$(number total_bytes_processed)" "$added" "$items" "$builds" "$pass" "$place" "$keys_sum" "$upkeep" "$checked" "$message" >"$RESULT_FILE"
  cat "$RESULT_FILE"
}

# Somebody who reads the repository meanwhile, such as a verification, holds a lock; what a killed run left goes once it is stale.
mark_suspect() {
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    # shellcheck disable=SC2086 # ids, one word each
    home_restic tag --remove home --add suspect "$snapshot" $superseded >/dev/null 2>"$WORK_DIR/tag.err" && return 0
    home_restic unlock >/dev/null 2>&1 || true
    sleep "${LOCK_PAUSE:-15}"
  done
  return 1
}

# What the last good backup left, if it was of these repositories: whether the upkeep is due again, for which of its parts, and
# what need not be asked again.
recall() {
  # Without logins, for the sum is published.
  place=$(cat "${RESTIC_REPOSITORY_FILE:?}" "${KEY_REPOSITORY_FILE:?}" | sed 's|//[^/@]*@|//|g' | sha256sum | cut -c 1-16)
  last=${STATUS_DIR:-/nonexistent}/last-good-backup
  if [ -s "$last" ] && [ "$(field place <"$last")" = "$place" ]; then
    former=$(field items <"$last")
    known_keys=$(field keys <"$last")
    parent=$(field snapshot <"$last")
    upkeep=$(field upkeep <"$last")
    checked=$(field checked <"$last")
  fi
  [ -n "$upkeep" ] && [ "${UPKEEP:-0}" != 1 ] || return 0
  # Half a day less, so that an upkeep every seventh night is not found to be some seconds early.
  upkept=$(date -u -d "$(echo "$upkeep" | sed 's/T/ /; s/Z//')" +%s) || return 0
  ago=$(($(date +%s) - upkept))
  [ "$ago" -ge $((${UPKEEP_DAYS:-7} * 86400 - 43200)) ] || [ "$ago" -lt 0 ] || due=no
}

# What the repository has to prove, and gets rid of, from time to time.
check_repository() {
  days=${UPKEEP_DAYS:-7}
  [ "$days" -gt 0 ] || days=1
  parts=$(((${CHECK_PARTS:-14} + days - 1) / days))
  part=${checked%/*}
  part=$((${part:-0} % parts + 1))
  # Without a lock of its own: nothing else in the platform removes data, and a killed run's lock must not stop the check.
  if ! home_restic check --no-lock --read-data-subset "$part/$parts" >"$WORK_DIR/check.out" 2>&1; then
    damaged=$(grep -i 'pack\|error\|blob' "$WORK_DIR/check.out" | grep -v '^create\|^load\|^check\|^read' | head -n 3 | tr '\n' ' ' | cut -c 1-400)
    fail "the repository is damaged: $damaged" "see docs/backup.md, 'A damaged repository'; nothing was removed"
  fi
  checked="$part/$parts"
}

backup() {
  started=$(date +%s)
  proven=no snapshot='' superseded='' summary='' checked='' note='' added=0 items=0 builds=0 pass=0
  due=yes opened=no former='' known_keys='' upkeep='' place='' keys_sum='' parent=''
  say_tries &
  saying=$!
  trap write_result EXIT
  cd "$HOME_DIR" || fail "$HOME_DIR is missing"
  [ ! -e "$UNFINISHED" ] || fail "$HOME_DIR is being filled from a snapshot (backup.startFrom)" "nothing was saved; the next backup is made once Jenkins has started"
  [ -e config.xml ] || [ -d jobs ] || fail "$HOME_DIR holds no jenkins_home (neither config.xml nor jobs)" "nothing was saved, so that an empty volume never pushes good snapshots out"
  # Anchored at the home; restic matches absolute paths.
  sed -n "s|^\([^#].*\)|$HOME_DIR/\1|p" "${EXCLUDES_FILE:?}" >"$WORK_DIR/excludes"
  printf '%s\n' "$HOME_DIR/secrets/master.key" "$HOME_DIR/secret.key" >>"$WORK_DIR/excludes"
  recall
  if [ "$due" = yes ]; then
    open_repository home_restic home
    opened=yes known=$snapshots
    former=$(echo "$snapshots" | tr '{' '\n' | grep '"home"' | sed -n 's/.*"items=\([0-9]*\)".*/\1/p' | tail -n 1)
    suspects=$(echo "$snapshots" | tr '{' '\n' | grep -c '"suspect"' || true)
  fi
  keys_sum=$(sum_of_keys)
  # By its report alone a snapshot is judged where its parent is known to be good: not one that a killed or failed run left.
  # A second pass is about being short, so the first is its parent.
  thorough=$due
  while :; do
    pass=$((pass + 1))
    pass_started=$(date +%s)
    [ "$pass" = 1 ] || thorough=yes
    [ "$thorough" = no ] || parent=''
    walk .
    mv "$WORK_DIR/numbers" "$WORK_DIR/before"
    readable=yes
    earlier=$snapshot
    one_pass || readable=no
    # What an earlier pass saved is in this one. Where somebody holds a lock it stays for now.
    [ -z "$earlier" ] || home_restic forget --quiet "$earlier" >/dev/null 2>&1 || superseded="$superseded $earlier"
    took=$(($(date +%s) - pass_started))
    added=$((added + $(number data_added)))
    if [ "$thorough" = yes ]; then wrong=$(examine_snapshot "$snapshot"); else wrong=$(examine_report "$snapshot"); fi
    say "pass $pass: snapshot $snapshot in $took s"
    if [ "$readable" = yes ] && [ -z "$wrong" ] && { [ "$pass" -gt 1 ] || [ "$took" -le "$SETTLE" ]; }; then break; fi
    if [ "$pass" = 3 ]; then
      [ "$readable" = yes ] || fail "files that exist could not be read: $(echo "$unreadable" | head -n 3 | tr '\n' ' ')" "see that they belong to user $(id -u); snapshot $snapshot lacks them"
      [ -z "$wrong" ] || fail "snapshot $snapshot has build numbers that would be given twice: $(echo "$wrong" | head -n 3 | tr '\n' ',' | sed 's/,$//')" "nextBuildNumber of these jobs is behind in the home itself: correct it there"
      break
    fi
  done
  if [ "$due" != no ] || [ "$keys_sum" != "$known_keys" ]; then backup_keys; fi
  [ "$due" = no ] || check_repository
  if [ -n "$former" ] && [ $((items * 2)) -lt "$former" ] && [ "${ACCEPT_SHRINK:-0}" != 1 ]; then
    fail "more than half of the jobs are gone: $items now, $former in the snapshot before" "snapshot $snapshot is kept and so are all earlier ones; if it is meant so, run: npm run backup -- --accept-shrink"
  fi
  proven=yes
  # shellcheck disable=SC2086
  [ -z "$superseded" ] || home_restic forget --quiet $superseded >/dev/null 2>&1 || say "these of earlier passes are still there:$superseded"
  if [ "$due" = yes ]; then
    retain home
    [ "$suspects" -lt 4 ] || retain suspect
    # One that was put off is tried again with the next backup.
    [ -n "$note" ] || upkeep=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  fi
  say "snapshot $snapshot is good: $items jobs and folders, $builds builds"
}

# Puts the keys that snapshot $2 was written under into folder $1. A home keeps its keys for life, but what is
# saved may become another home: a Jenkins that began anew on an empty volume, or one that was taken over. A snapshot
# that names no keys gets the newest.
restore_keys() {
  sum=$(home_restic snapshots --no-lock --json "$2" | sed -n 's/.*"keys=\([0-9a-f]*\)".*/\1/p')
  # Mostly they are there, and one process is enough.
  [ -z "$sum" ] || ! key_restic restore latest --host "$HOST" --tag "keys,sha256=$sum" --target "$1" >/dev/null 2>&1 || return 0
  keys=$(key_restic snapshots --no-lock --json --host "$HOST" --tag keys 2>"$WORK_DIR/keys.err") ||
    fail "the key repository cannot be opened: $(said "$WORK_DIR/keys.err")"
  if [ "$keys" = "[]" ]; then
    say "no keys were ever saved"
    return 0
  fi
  tags=keys
  case "$sum:$keys" in
  :*) ;;
  *"\"sha256=$sum\""*) tags="keys,sha256=$sum" ;;
  *) say "warning: the keys of snapshot $2 are not in the key repository; it gets the newest there are, and credentials in it may be unreadable" ;;
  esac
  key_restic restore latest --host "$HOST" --tag "$tags" --target "$1" >/dev/null || fail "the keys could not be restored"
}

list_snapshots() {
  home_restic snapshots --no-lock --json --host "$HOST" --tag home --tag suspect 2>"$WORK_DIR/open.err" && return
  no_wrong_password home
  fail "the home repository cannot be opened: $(said "$WORK_DIR/open.err")" "see that it can be reached; where no backup was made yet, npm run backup makes it"
}

# The keys come while the home does, into a folder of their own, for restic writes both folders' modes last.
restore() {
  [ -d "$2" ] || fail "the folder $2 is missing"
  rm -rf "${2:?}/$STAGED_KEYS"
  if [ "$1" = latest ]; then
    home_restic snapshots --no-lock --json --host "$HOST" --tag home >"$WORK_DIR/known" 2>"$WORK_DIR/open.err" ||
      fail "the home repository cannot be opened: $(said "$WORK_DIR/open.err")" "see that it can be reached and that its password is the right one"
    set -- "$(resolve "$1" "$WORK_DIR/known")" "$2"
    [ -n "$1" ] || fail "there is no good snapshot in the home repository, so none is latest" "see that it is the right repository: npm run backups"
  fi
  say "restoring snapshot $1"
  restore_keys "$2/$STAGED_KEYS" "$1" >"$WORK_DIR/keys.log" 2>&1 &
  whole=yes keys_there=yes
  home_restic restore "$1" --host "$HOST" --tag home --target "$2" --verify --sparse >"$WORK_DIR/restore.out" 2>&1 || whole=no
  wait $! || keys_there=no
  if [ "$whole" = no ]; then
    rm -rf "${2:?}/$STAGED_KEYS"
    fail "restic could not restore snapshot $1: $(grep -v '^$' "$WORK_DIR/restore.out" | grep -i 'error\|fatal' | head -n 3 | tr '\n' ' ' | cut -c 1-400)" "the volume is not used; try another snapshot: npm run backups"
  fi
  [ "$keys_there" = yes ] || fail "$(said "$WORK_DIR/keys.log" | sed 's/^home.sh: //')"
  cat "$WORK_DIR/keys.log"
  found=$(find "$2" -mindepth 1 \( -path "$2/$STAGED_KEYS" -o -path "$2/lost+found" -o -path "$2/$UNFINISHED" \) -prune -o -print | wc -l)
  expected=$(sed -n 's/^Summary: Restored \([0-9]*\) .*/\1/p' "$WORK_DIR/restore.out")
  [ "$found" -ge "${expected:?restic told no number}" ] || fail "snapshot $1 holds $expected files and folders, but only $found were restored"
  put_keys "$2"
  examine "$2"
}

# Puts the keys that were restored into folder $1 where they belong.
put_keys() {
  [ -d "$1/$STAGED_KEYS" ] || return 0
  mkdir -p "$1/secrets"
  for file in secrets/master.key secret.key; do
    [ ! -f "$1/$STAGED_KEYS/$file" ] || { chmod 600 "$1/$STAGED_KEYS/$file" && mv -f "$1/$STAGED_KEYS/$file" "$1/$file"; }
  done
  rm -rf "${1:?}/$STAGED_KEYS"
}

# In an init container of the controller, at each of its starts. The mark is made before the first file and taken away after
# the last check, so that an interrupted one is told from a home in use, and begun again.
start_from() {
  [ -d "$2" ] || fail "the folder $2 is missing"
  # The lock of the container home-fence (standby.sh) comes before Jenkins and says nothing of a home.
  if [ ! -e "$2/$UNFINISHED" ] && [ -n "$(find "$2" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name .home-fence | head -n 1)" ]; then
    say "the home holds data and is left as it is"
    return 0
  fi
  : >"$2/$UNFINISHED"
  begun=$2
  empty_begun
  # What was begun and failed must not be taken for a home by whoever gives up starting from a snapshot.
  trap '[ $? = 0 ] || empty_begun' EXIT
  restore "$@"
  trap - EXIT
  rm -f "$2/$UNFINISHED"
  say "the home was empty and is now as in the snapshot"
}

empty_begun() { find "$begun" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name .home-fence ! -name "$UNFINISHED" -exec rm -rf {} +; }

examine() {
  walk "$1"
  wrong=$(behind "$WORK_DIR/newest" "$WORK_DIR/numbers")
  [ -z "$wrong" ] || fail "build numbers would be given twice: $(echo "$wrong" | head -n 5 | tr '\n' ',' | sed 's/,$//')" "correct nextBuildNumber of these jobs and run again"
  printf '{"items":%d,"builds":%d,"files":%d}\n' "$items" "$builds" "$(find "$1" -type f | wc -l)"
}

# Lines "item<tab>jobs/NAME" and "build<tab>jobs/NAME<tab>NUMBER" as controller-check.sh prints them for a running Jenkins.
inventory() {
  cd "$1"
  [ -d jobs ] || return 0
  find jobs \( -name builds -o -name workspace \) -prune -o -type f -name config.xml -print | sed -n 's|^\(\(jobs/[^/]*/\)*jobs/[^/]*\)/config.xml$|item\t\1|p'
  find jobs -path '*/builds/[0-9]*' -prune -print | while IFS= read -r build; do
    number=${build##*/}
    case "$number" in *[!0-9]*) continue ;; esac
    [ ! -f "$build/build.xml" ] || printf 'build\t%s\t%s\n' "${build%/builds/*}" "$number"
  done
}

folder_of_job() { printf '/%s\n' "$1" | sed 's|/|/jobs/|g; s|^/||'; }

has_job() {
  folder=$(folder_of_job "$2")
  home_restic ls --no-lock "$1" "/$folder" >"$WORK_DIR/listing" 2>"$WORK_DIR/open.err" || fail "snapshot $1 cannot be read: $(said "$WORK_DIR/open.err")"
  grep -qxF "/$folder/config.xml" "$WORK_DIR/listing" || fail "snapshot $1 has no job $2" "$NAMES_OF_JOBS"
}
NAMES_OF_JOBS="the names of jobs are those of the folders below jobs; a job in a folder is written FOLDER/JOB"

# The job's folder changes place by two renames; run again after an interruption it starts over from the snapshot.
restore_job() {
  folder=$(folder_of_job "$2")
  staged=$3/.replaced/incoming
  rm -rf "$staged"
  mkdir -p "$staged" "$3/$(dirname "$folder")"
  home_restic restore "$1" --host "$HOST" --tag home --include "/$folder" --target "$staged" --verify >"$WORK_DIR/restore.out" 2>&1 ||
    fail "restic could not restore $folder of snapshot $1: $(grep -i 'error\|fatal' "$WORK_DIR/restore.out" | head -n 3 | tr '\n' ' ' | cut -c 1-400)"
  [ -f "$staged/$folder/config.xml" ] || fail "snapshot $1 has no job $2" "$NAMES_OF_JOBS"
  walk "$staged"
  wrong=$(behind "$WORK_DIR/newest" "$WORK_DIR/numbers")
  [ -z "$wrong" ] || fail "build numbers would be given twice: $wrong"
  # Builds that ran since the snapshot used numbers up; they are not given again.
  # A run that was killed between the two renames left the number with the former folder.
  was=$(cat "$3/$folder/nextBuildNumber" "$3"/.replaced/*/"$folder"/nextBuildNumber 2>/dev/null | tr -dc '0-9\n' | sort -n | tail -n 1)
  now=$(tr -dc 0-9 2>/dev/null <"$staged/$folder/nextBuildNumber" || true)
  if [ -n "$was" ] && [ "$was" -gt "${now:-0}" ]; then echo "$was" >"$staged/$folder/nextBuildNumber"; fi
  aside=$3/.replaced/$(date -u +%Y%m%dT%H%M%SZ)/$folder
  if [ -d "$3/$folder" ]; then
    mkdir -p "$(dirname "$aside")"
    mv "$3/$folder" "$aside"
  fi
  mv "$staged/$folder" "$3/$folder"
  rm -rf "$staged"
  say "job $2 is as in snapshot $1; the former one is in ${aside#"$3"/}"
}

command=${1:-}
[ $# -eq 0 ] || shift
case "$command:$#" in
backup:0) backup ;;
snapshots:0) list_snapshots ;;
diff:2) home_restic diff --no-lock "$1" "$2" ;;
restore:2) restore "$@" ;;
start-from:2) start_from "$@" ;;
has-job:2) has_job "$@" ;;
restore-job:3) restore_job "$@" ;;
examine:1) examine "$1" ;;
inventory:1) inventory "$1" ;;
standby:1 | standby-wait:1 | standby-take:[34] | standby-give:3 | standby-renew:1)
  # shellcheck source=scripts/backup/standby.sh
  . "${0%/*}/standby.sh"
  "$(echo "$command" | tr - _)" "$@"
  ;;
*)
  usage >&2
  exit 2
  ;;
esac
