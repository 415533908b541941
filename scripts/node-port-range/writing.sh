# Writing the manifest: memory, backup, journal, rename, and the way back.

# Writes down what restore will need; done before anything is changed.
remember() {
  mkdir -p "$STATE" || gave_up "cannot write to $BACKUP"
  if [ ! -f "$STATE/before" ]; then
    before=absent
    if [ "$HITS" != 0 ]; then before="value $FLAG"; fi
    if ! { put "$STATE/original" <"$MANIFEST" && printf '%s\n' "$before" | put "$STATE/before"; }; then gave_up "cannot write to $STATE"; fi
  else
    now=$(hash_of "$MANIFEST")
    if [ "$now" != "$(remembered sum)" ] && [ "$now" != "$(remembered written)" ]; then
      # Changed by somebody else since (an upgrade, a hand): what restore puts back follows that file,
      # once this run has succeeded.
      if ! { undo "$WORK/original" && put "$STATE/original.new" <"$WORK/original"; }; then gave_up "cannot write to $STATE"; fi
    fi
  fi
  step state
}
# undo FILE: the manifest with the remembered value instead of ours.
undo() {
  target=$(remembered before)
  case ${target:-absent} in
  absent) engine remove "$MANIFEST" >"$1" ;;
  *)
    VALUE=${target#value }
    engine set "$MANIFEST" >"$1"
    ;;
  esac
}

backup() {
  copy="$BACKUP/$NAME.$(date -u +%Y%m%dT%H%M%SZ).$(hash_of "$MANIFEST")"
  cp -p "$MANIFEST" "$BACKUP/$NAME.tmp" && flush "$BACKUP/$NAME.tmp" && mv -f "$BACKUP/$NAME.tmp" "$copy" && flush "$BACKUP" || return 1
  COPY=$copy
  # The names sort by time; the latest five stay. Of several in one second they do not say which is the newest: this one is.
  set -- "$BACKUP/$NAME".[0-9]*T[0-9]*Z.*
  while [ $# -gt 5 ]; do
    if [ "$1" = "$copy" ]; then set -- "$@" "$1"; else rm -f "$1"; fi
    shift
  done
}
# replace FILE: its bytes become the manifest, with the manifest's owner and mode.
replace() {
  rm -f "$TEMP"
  if ! { cp -p "$MANIFEST" "$TEMP" && cat "$1" >"$TEMP" && flush "$TEMP" && same "$1" "$TEMP"; }; then
    rm -f "$TEMP"
    return 1
  fi
  step temp
  mv -f "$TEMP" "$MANIFEST" && flush "$FOLDER"
}
# gave_up MESSAGE: refuses before the manifest was touched; of a first run nothing stays behind.
gave_up() {
  rm -f "$STATE"/*.tmp "$BACKUP"/*.tmp
  if [ -n "$COPY" ]; then rm -f "$COPY"; fi
  if [ -n "$FRESH" ]; then rm -rf "$STATE" && rmdir "$BACKUP" 2>/dev/null; fi
  refuse "$1; nothing was changed"
}
# install FILE: backup, journal and replace; nothing has changed if it fails.
install() {
  if [ -n "$LIVE" ] && [ -z "$(processes kubelet)" ]; then gave_up "no kubelet runs on this node, so nothing would restart kube-apiserver; start it first"; fi
  backup || gave_up "cannot write a backup to $BACKUP"
  step backup
  hash_of "$1" | put "$STATE/written" || gave_up "cannot write to $STATE"
  # The journal is the old file itself under another name: putting it back is one rename, which no full disk can prevent.
  rm -f "$PREVIOUS"
  if ! { { ln "$MANIFEST" "$PREVIOUS" 2>/dev/null || cp -p "$MANIFEST" "$PREVIOUS"; } && flush "$PREVIOUS" && flush "$FOLDER"; }; then
    close_journal
    gave_up "cannot write to $FOLDER"
  fi
  step journal
  WROTE=yes
  if ! replace "$1"; then
    close_journal
    gave_up "cannot write to $FOLDER"
  fi
  step rename
}
# The journal of a run that was cut off is worth something only while its manifest stands.
read_journal() {
  if [ -f "$PREVIOUS" ] && [ "$(remembered written)" != "$(hash_of "$MANIFEST")" ]; then close_journal; fi
}
close_journal() { rm -f "$PREVIOUS" "$STATE/written" "$STATE/original.new"; }

# serve_or_roll_back VALUE: waits; on failure puts the manifest of before back and ends the script.
serve_or_roll_back() {
  if [ -z "$LIVE" ]; then return; fi
  journal=''
  if [ -f "$PREVIOUS" ]; then journal=$PREVIOUS; fi
  if wait_for "$1" "${journal:+"$STATE/written"}"; then return; fi
  note "$PROBLEM"
  last_log_lines >"$WORK/log"
  if [ -z "$journal" ]; then
    note "nothing was written, so there is nothing to put back; last log lines:"
  else
    { mv -f "$journal" "$MANIFEST" && flush "$FOLDER"; } || {
      note "the old manifest could not be put back: copy $journal to $MANIFEST by hand"
      exit 1
    }
    VALUE=$1
    inspect "$MANIFEST" || true
    if wait_for "$FLAG"; then
      note "the old manifest is back in force; last log lines of the failed start:"
    else note "the old manifest is back, but $PROBLEM; last log lines of the failed start:"; fi
    close_journal
    if [ ! -f "$STATE/applied" ]; then rm -rf "$STATE"; fi
  fi
  sed 's/^/  /' "$WORK/log" >&2
  exit 1
}
