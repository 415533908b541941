# The flag in the ConfigMap kube-system/kubeadm-config, so that `kubeadm upgrade` keeps it.

# read_kubeadm: sets KUBEADM to "value RANGE", "absent", or "" where it cannot be told.
read_kubeadm() {
  KUBEADM=''
  if ! admin_conf || ! api -n kube-system get configmap kubeadm-config -o 'jsonpath={.data.ClusterConfiguration}' >"$WORK/cluster" 2>/dev/null; then return 1; fi
  if [ ! -s "$WORK/cluster" ]; then return 1; fi
  KUBEADM=$(engine cc-get "$WORK/cluster" | tr '\t' ' ') || KUBEADM=''
  [ -n "$KUBEADM" ]
}
# write_kubeadm MODE NOTE: MODE cc-set or cc-remove with $VALUE; NOTE is JSON for the annotation.
write_kubeadm() {
  text=$(engine "$1" "$WORK/cluster" >"$WORK/cluster.new" || cat "$WORK/cluster.new")
  if [ -n "$text" ]; then
    warn "kubeadm-config: $text"
    return
  fi
  version=$(api -n kube-system get configmap kubeadm-config -o 'jsonpath={.metadata.resourceVersion}' 2>/dev/null)
  {
    printf '{"metadata":{"resourceVersion":"%s","annotations":{"%s":%s}},"data":{"ClusterConfiguration":' "$version" "$CONFIGMAP_NOTE" "$2"
    engine json-string "$WORK/cluster.new"
    printf '}}'
  } >"$WORK/patch"
  api -n kube-system patch configmap kubeadm-config --type merge --patch-file "$WORK/patch" >/dev/null 2>"$WORK/error" ||
    warn "kubeadm-config was not changed, a later kubeadm upgrade would lose the range: $(cat "$WORK/error")"
}
kubeadm_note() { api -n kube-system get configmap kubeadm-config -o "jsonpath={.metadata.annotations['$CONFIGMAP_NOTE']}" 2>/dev/null; }
apply_kubeadm() {
  if ! read_kubeadm; then
    warn "the ConfigMap kubeadm-config cannot be read here: a kubeadm upgrade would lose the range"
    return
  fi
  VALUE=$RANGE
  before=$(kubeadm_note)
  if [ "$KUBEADM" = "value $RANGE" ]; then
    # It stood there before it stood in the manifest, and restore is to leave it.
    if [ -z "$before" ] && [ ! -f "$STATE/applied" ] && [ "$(remembered before)" != "$KUBEADM" ]; then write_kubeadm cc-set "$(json "$KUBEADM")"; fi
    return
  fi
  write_kubeadm cc-set "$(json "${before:-$KUBEADM}")"
}
# servers RANGE: "here" or "elsewhere" for each API server of the cluster whose pod has this range.
servers() {
  # shellcheck disable=SC2016  # a Go template
  api -n kube-system get pods -l component=kube-apiserver -o go-template='{{range .items}}{{range .spec.containers}}{{range .command}} {{.}}{{end}}{{range .args}} {{.}}{{end}}{{end}}{{"\n"}}{{end}}' 2>/dev/null |
    awk -v range="$1" -v own="--advertise-address=$ADDRESS" '
      { has = 0; here = 0; for (i = 1; i <= NF; i++) { if ($i ~ /^--service[-_]node[-_]port[-_]range=/) has = substr($i, index($i, "=") + 1) == range; if ($i == own) here = 1 } }
      has { print here ? "here" : "elsewhere" }'
}
restore_kubeadm() {
  if ! read_kubeadm; then return; fi
  if [ -z "$RANGE" ] && [ "$KUBEADM" = "value $(remembered applied)" ]; then
    # The ConfigMap is every node's: it keeps the range until the last node that has it gives it up.
    if servers "$(remembered applied)" | grep -q elsewhere; then
      # The next node's restore looks at this one's pod, in which the kubelet shows the new arguments within 90 s.
      tries=0
      while [ "$tries" -lt 120 ] && servers "$(remembered applied)" | grep -q here; do
        tries=$((tries + 1))
        sleep 1
      done
      note "kubeadm-config keeps $(remembered applied), which other control-plane nodes serve"
      return
    fi
  fi
  if [ -n "$RANGE" ]; then target=$1; else target=$(kubeadm_note); fi
  if [ -z "$target" ]; then
    # An upgrade rewrites the ConfigMap without its annotations; then what the manifest had decides.
    if [ "$KUBEADM" != "value $(remembered applied)" ]; then return; fi
    target=$1
  fi
  case $target in
  absent) write_kubeadm cc-remove null ;;
  value\ *)
    VALUE=${target#value }
    write_kubeadm cc-set null
    ;;
  esac
}
