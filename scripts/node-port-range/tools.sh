# Small things: what is said, how a run ends, files that are written whole or not at all.

note() { printf 'node-port-range: %s\n' "$*" >&2; }
warn() {
  note "warning: $*"
  printf '%s\n' "$*" >>"$WORK/warnings"
}
refuse() {
  note "$*"
  exit 2
}
have() { command -v "$1" >/dev/null 2>&1; }
# A point at which a test may cut the power.
step() { if [ "${NODE_PORT_RANGE_TEST_KILL_AFTER:-}" = "$1" ]; then kill -9 $$; fi; }

cleanup() {
  status=$?
  trap '' HUP INT TERM
  if [ -n "$WORK" ]; then rm -rf "$WORK"; fi
  if [ -n "$HELD_LOCK" ]; then rm -f "$HELD_LOCK"; fi
  exit "$status"
}
interrupted() {
  if [ -n "$WROTE" ]; then note "interrupted after the manifest was written: run the same command again, it carries on from there"; fi
  exit 1
}

# engine MODE FILE: runs the reader and editor of manifests on a file with the wanted $VALUE.
engine() { ENGINE_MODE=$1 ENGINE_VALUE=$VALUE ENGINE_SIZE=$(wc -c <"$2") awk "$ENGINE" <"$2"; }
json() {
  printf '%s' "$1" >"$WORK/string"
  engine json-string "$WORK/string"
}
json_or_null() { if [ -n "$1" ]; then json "$1"; else printf null; fi; }

hash_of() {
  if have sha256sum; then sha256sum <"$1" | cut -c 1-16; else cksum <"$1" | tr ' ' '-' | tr -d '\n '; fi
}
flush() { sync "$1" 2>/dev/null || sync; }
# put FILE: standard input becomes FILE, whole or not at all.
put() {
  cat >"$1.tmp" && flush "$1.tmp" && mv -f "$1.tmp" "$1" && flush "${1%/*}"
}
same() { cmp -s "$1" "$2"; }
remembered() { if [ -f "$STATE/$1" ]; then cat "$STATE/$1"; fi; }

show_diff() {
  diff -u "$1" "$2" | sed -e "1s|.*|--- $MANIFEST|" -e "2s|.*|+++ $MANIFEST (changed)|"
}
