# The range kept from local port allocation, over reboots.

SYSCTL=$ROOT/proc/sys/net/ipv4/ip_local_reserved_ports
SYSCTL_FILE=$ROOT/etc/sysctl.d/99-node-port-range.conf
union() {
  printf '%s\n' "$*" | tr -s ', ' '\n' | awk '
    /./ { n = split($0, r, "-"); for (p = r[1] + 0; p <= r[n] + 0; p++) set[p] = 1 }
    END { for (p = 0; p <= 65536; p++) if (p in set) { if (start == "") start = p } else if (start != "") { printf "%s%s", sep, start (p - 1 > start ? "-" p - 1 : ""); sep = ","; start = "" } }'
}
reserve() {
  if [ ! -w "$SYSCTL" ]; then
    warn "$SYSCTL cannot be written; local ports are not reserved"
    return
  fi
  if [ ! -f "$STATE/reserved-before" ]; then put "$STATE/reserved-before" <"$SYSCTL" || return; fi
  all=$(union "$(remembered reserved-before)" "$RANGE")
  if ! { printf '# Written by node-port-range.sh: keeps node ports from local port allocation.\nnet.ipv4.ip_local_reserved_ports = %s\n' "$all" >"$WORK/sysctl" && mkdir -p "${SYSCTL_FILE%/*}"; }; then return; fi
  if ! same "$WORK/sysctl" "$SYSCTL_FILE"; then put "$SYSCTL_FILE" <"$WORK/sysctl" && chmod 644 "$SYSCTL_FILE"; fi
  printf '%s\n' "$all" >"$SYSCTL" || warn "$SYSCTL did not take $all"
}
unreserve() {
  if [ ! -f "$STATE/reserved-before" ]; then return; fi
  rm -f "$SYSCTL_FILE"
  remembered reserved-before >"$SYSCTL" || warn "$SYSCTL could not be put back"
  rm -f "$STATE/reserved-before"
}
reserved() { [ -f "$SYSCTL_FILE" ] && [ "$(union "$(cat "$SYSCTL")" "$RANGE")" = "$(union "$(cat "$SYSCTL")")" ]; }
