# What speaks against a range: Services that would be left outside, ports that are in use.

outside() { awk -v range="$1" 'BEGIN { split(range, r, "-"); if (r[2] == "") r[2] = r[1] } $1 < r[1] + 0 || $1 > r[2] + 0 { printf "%s%s (%s)", sep, $2, $1; sep = ", " }'; }
# shellcheck disable=SC2016  # a Go template, not the shell's variables
list_services() {
  api get services --all-namespaces -o go-template='{{range .items}}{{$name := printf "%s/%s" .metadata.namespace .metadata.name}}{{range .spec.ports}}{{if .nodePort}}{{.nodePort}} {{$name}}{{"\n"}}{{end}}{{end}}{{if .spec.healthCheckNodePort}}{{.spec.healthCheckNodePort}} {{$name}}{{"\n"}}{{end}}{{end}}' 2>/dev/null
}
# Ports something on this node listens on, one a line.
listening() {
  cat "$ROOT/proc/net/tcp" "$ROOT/proc/net/tcp6" 2>/dev/null | awk '
    function number(s,   i, v) { v = 0; for (i = 1; i <= length(s); i++) v = v * 16 + index("0123456789ABCDEF", substr(s, i, 1)) - 1; return v }
    $4 == "0A" { n = split($2, part, ":"); print number(part[n]) }' | sort -nu
}
covers() { awk -v a="$1" -v b="$2" 'BEGIN { split(a, x, "-"); split(b, y, "-"); if (y[2] == "") y[2] = y[1]; exit !(x[1] + 0 <= y[1] + 0 && x[2] + 0 >= y[2] + 0) }'; }
# guard NEW: refuses if a Service would be left outside, warns of ports that are in use.
guard() {
  new=$1
  old=${FLAG:-$DEFAULT_RANGE}
  if admin_conf && list_services >"$WORK/services"; then
    lost=$(outside "$new" <"$WORK/services")
    if [ -n "$lost" ]; then
      if covers "$new" "$old"; then
        warn "Services hold ports outside $new (as before): $lost"
      else refuse "Services hold ports outside $new: $lost; delete them or give them other ports first"; fi
    fi
  elif ! covers "$new" "$old" && [ -z "$SKIP_CHECK" ]; then
    : >"$WORK/services"
    # With the apiserver down there is nobody to ask, and this run may be what brings it back.
    if ready; then refuse "narrowing $old to $new, and the Services cannot be listed (kubectl and /etc/kubernetes/admin.conf are needed); --skip-service-check if you know that none is left outside"; fi
    warn "the apiserver does not answer, so Services outside $new could not be looked for"
  else
    : >"$WORK/services"
  fi
  listening >"$WORK/listening"
  used=$(awk -v range="$new" -v old="$old" 'BEGIN { split(range, r, "-"); split(old, o, "-") } $1 >= r[1] + 0 && $1 <= r[2] + 0 && !($1 >= o[1] + 0 && $1 <= o[2] + 0) { printf "%s%s", sep, $1; sep = " " }' "$WORK/listening")
  if [ -n "$used" ]; then warn "in use on this node and inside the new range: $used; a Service that is given one of them takes it away from its program"; fi
  clash=$(awk 'NR == FNR { used[$1] = 1; next } $1 in used { printf "%s%s (%s)", sep, $2, $1; sep = ", " }' "$WORK/listening" "$WORK/services")
  if [ -n "$clash" ]; then warn "Services hold ports on which a program of this node listens: $clash"; fi
}
