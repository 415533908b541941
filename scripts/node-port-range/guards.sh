# What speaks against a range: Services that would be left outside, ports that are in use.

outside() { awk -v range="$1" 'BEGIN { split(range, r, "-"); if (r[2] == "") r[2] = r[1] } $1 < r[1] + 0 || $1 > r[2] + 0 { printf "%s%s (%s)", sep, $2, $1; sep = ", " }'; }
# shellcheck disable=SC2016  # a Go template, not the shell's variables
list_services() {
  api get services --all-namespaces -o go-template='{{range .items}}{{$name := printf "%s/%s" .metadata.namespace .metadata.name}}{{range .spec.ports}}{{if .nodePort}}{{.nodePort}} {{$name}}{{"\n"}}{{end}}{{end}}{{if .spec.healthCheckNodePort}}{{.spec.healthCheckNodePort}} {{$name}}{{"\n"}}{{end}}{{end}}' 2>/dev/null
}
# Ports something on this node listens on, one a line, each with the number of its socket.
sockets() {
  cat "$ROOT/proc/net/tcp" "$ROOT/proc/net/tcp6" 2>/dev/null | awk '
    function number(s,   i, v) { v = 0; for (i = 1; i <= length(s); i++) v = v * 16 + index("0123456789ABCDEF", substr(s, i, 1)) - 1; return v }
    $4 == "0A" { n = split($2, part, ":"); print number(part[n]), $10 }'
}
listening() { sockets | cut -d ' ' -f 1 | sort -nu; }
# shellcheck disable=SC2012  # the kernel's names
# The programs that listen on a port, "NAME (process ID)" each on a line; nothing where that cannot be told.
listeners() {
  sockets | awk -v port="$1" '$1 == port && $2 > 0 { print "socket:[" $2 "]" }' >"$WORK/sockets"
  # With a second folder ls names each, also where there is one process.
  ls -l "$WORK" "$ROOT"/proc/[0-9]*/fd 2>/dev/null | awk -v root="$ROOT/proc/" -v names="$WORK/sockets" '
    BEGIN { while ((getline line <names) > 0) wanted[line] = 1 }
    index($0, root) == 1 { id = substr($0, length(root) + 1); sub(/\/.*/, "", id); next }
    ($NF in wanted) && !(id in seen) { seen[id] = 1; print id }' | while IFS= read -r id; do
    name=$(cat "$ROOT/proc/$id/comm" 2>/dev/null) && printf '%s (process %s)\n' "$name" "$id"
  done
}
# claims PORTS: why the ingress cannot have these node ports, one reason a line. A Service's port goes before whatever listens
# there, also on the node itself.
claims() {
  know_services
  for port in $(printf '%s' "$1" | tr , ' '); do
    if [ "$port" = "$PORT" ]; then
      echo "node port $port of the ingress is the API server's own port (--secure-port in $MANIFEST)"
      continue
    fi
    if ! listening | grep -qx "$port"; then continue; fi
    # A platform that is there keeps what it has: of a port that a Service holds already guard warns.
    if grep -q "^$port " "$WORK/services"; then continue; fi
    if [ -f "$WORK/services-unknown" ] && [ "$AGREES" = yes ]; then continue; fi
    # What serves node ports may hold them open itself, as kube-proxy did up to Kubernetes 1.26.
    who=$(listeners "$port" | grep -v -E '^(kube-proxy|kube-router|cilium-agent|antrea-agent) ' | sed -n 1p)
    if [ -z "$who" ] && [ -n "$(listeners "$port")" ]; then continue; fi
    echo "node port $port of the ingress is in use on this node: ${who:-a program} listens there"
  done
}
# Sees to the list of Services: the file services, and services-unknown where it cannot be had.
know_services() {
  if [ -f "$WORK/services" ]; then return; fi
  if admin_conf && list_services >"$WORK/services"; then return; fi
  : >"$WORK/services"
  : >"$WORK/services-unknown"
}
covers() { awk -v a="$1" -v b="$2" 'BEGIN { split(a, x, "-"); split(b, y, "-"); if (y[2] == "") y[2] = y[1]; exit !(x[1] + 0 <= y[1] + 0 && x[2] + 0 >= y[2] + 0) }'; }
# guard NEW: refuses if a Service would be left outside, warns of ports that are in use.
guard() {
  new=$1
  old=${FLAG:-$DEFAULT_RANGE}
  know_services
  if [ ! -f "$WORK/services-unknown" ]; then
    lost=$(outside "$new" <"$WORK/services")
    if [ -n "$lost" ]; then
      if covers "$new" "$old"; then
        warn "Services hold ports outside $new (as before): $lost"
      else refuse "Services hold ports outside $new: $lost; delete them or give them other ports first"; fi
    fi
  elif ! covers "$new" "$old" && [ -z "$SKIP_CHECK" ]; then
    # With the apiserver down there is nobody to ask, and this run may be what brings it back.
    if ready; then refuse "narrowing $old to $new, and the Services cannot be listed (kubectl and /etc/kubernetes/admin.conf are needed); --skip-service-check if you know that none is left outside"; fi
    warn "the apiserver does not answer, so Services outside $new could not be looked for"
  fi
  listening >"$WORK/listening"
  used=$(awk -v range="$new" -v old="$old" 'BEGIN { split(range, r, "-"); split(old, o, "-") } $1 >= r[1] + 0 && $1 <= r[2] + 0 && !($1 >= o[1] + 0 && $1 <= o[2] + 0) { printf "%s%s", sep, $1; sep = " " }' "$WORK/listening")
  if [ -n "$used" ]; then warn "in use on this node and inside the new range: $used; a Service that is given one of them takes it away from its program"; fi
  clash=$(awk 'NR == FNR { used[$1] = 1; next } $1 in used { printf "%s%s (%s)", sep, $2, $1; sep = ", " }' "$WORK/listening" "$WORK/services")
  if [ -n "$clash" ]; then warn "Services hold ports on which a program of this node listens: $clash"; fi
}
