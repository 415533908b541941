import * as k8s from "@pulumi/kubernetes";
import { usual } from "../../config/pieces";
import { labels, type Place } from "./place";
import type { CacheMount, CacheVolume } from "./tool-cache";

/**
 * Sources on a node: for each repository that builds took from somewhere else, a mirror that new clones begin with.
 *
 * What a build fetched it offers, as a bundle; the keeper takes that into the mirror, where git computes the name of every object anew
 * and looks whether each commit is whole, and makes a generation of it: a folder that never changes again, hard links of the mirror's
 * packs, with a link `current` to the newest. A new clone starts with a copy of the generation's packs in its own `.git`, and asks the
 * server, with its own log-in, for what is beyond its tips. Nothing refers to the mirror afterwards: it may go at any time.
 *
 * Why no other way: alternates, as `git clone --reference` makes them, break with the mirror, and in every container that has the
 * workspace and not the cache; to make the clone independent again (`--dissociate`) packs the whole repository anew. A mirror as
 * `insteadOf` the server is as old as its last update and asks nobody whether the build may read. Hard links do not leave a mount, and
 * the workspace is another one.
 *
 * Below `git/GROUP/`: `mirrors/NAME/{repo.git,generations/N,current}`, NAME a hash of the address without its log-in; `offers/NAME-*`.
 */
interface Cached {
  caches: string[];
  cacheGroup?: string;
}

const folderOf = ({ cacheGroup = usual.cacheGroup }: Cached): string => `git/${cacheGroup}`;

/** Folders that the keeper makes on each node for the templates, below the caches' own. */
export const gitFolders = (templates: Cached[]): string[] =>
  [...new Set(templates.filter(({ caches }) => caches.includes("git")).flatMap((template) => ["mirrors", "offers", "work"].map((each) => `${folderOf(template)}/${each}`)))].sort();

const configMapName = "agent-git";
/** Where builds find the script before any git of the image: first of the usual PATH, and nobody's. */
const wrapper = "/usr/local/sbin/git";

/** Where an agent has its mirrors and its own folder of offers, below `mount`. */
export const gitMountPaths = (mount: string): string[] => [wrapper, `${mount}/git`, `${mount}/git-offers`];

/** What an agent's pod has of the mirrors; nothing without git in its caches. */
export function gitCache(template: Cached, mount: string, path: string): { env: Record<string, string>; volumes: CacheVolume[]; volumeMounts: CacheMount[] } {
  if (!template.caches.includes("git")) return { env: {}, volumes: [], volumeMounts: [] };
  const hostPath = (folder: string) => ({ path: `${path}/${folderOf(template)}/${folder}`, type: "DirectoryOrCreate" });
  return {
    env: { GIT_MIRRORS: `${mount}/git`, GIT_MIRROR_OFFERS: `${mount}/git-offers` },
    volumes: [
      { name: "cache-git", hostPath: hostPath("mirrors") },
      { name: "cache-git-offers", hostPath: hostPath("offers") },
      { name: configMapName, configMap: { name: configMapName, defaultMode: 0o555 } },
    ],
    volumeMounts: [
      { name: "cache-git", mountPath: `${mount}/git`, readOnly: true },
      { name: "cache-git-offers", mountPath: `${mount}/git-offers` },
      { name: configMapName, mountPath: wrapper, subPath: "git", readOnly: true },
    ],
  };
}

/**
 * The git that builds and Jenkins' git plugin find first. It is about `git clone` and the first `git fetch` of a repository that has
 * nothing yet; anything else, and whatever it does not know, goes to the image's git as it is, and so does all where a step of its own
 * fails. Shallow and partial clones have little to gain, and are as they were; so are submodules, which git fetches by itself.
 * POSIX shell, coreutils, find, flock; environment GIT_MIRRORS, GIT_MIRROR_OFFERS, without which it does nothing.
 */
export const gitScript = `#!/bin/sh
git=
IFS=:
for folder in $PATH; do
  if [ -x "$folder/git" ] && ! [ "$folder/git" -ef "$0" ]; then git=$folder/git; break; fi
done
unset IFS
if [ -z "$git" ]; then echo "git: there is none in this image" >&2; exit 127; fi
command= value=
for word; do
  if [ -n "$value" ]; then value=; continue; fi
  case $word in
    -c) value=yes ;;
    -*) break ;;
    *) command=$word; break ;;
  esac
done
case $command in clone | fetch) ;; *) exec "$git" "$@" ;; esac
if [ ! -d "\${GIT_MIRRORS:-}" ] || [ -n "\${GIT_ALTERNATE_OBJECT_DIRECTORIES:-}\${GIT_OBJECT_DIRECTORY:-}\${GIT_TEMPLATE_DIR:-}" ]; then exec "$git" "$@"; fi
url= last= before=yes
for word; do
  if [ -n "$before" ]; then [ "$word" != "$command" ] || before=; continue; fi
  last=$word
  case $word in
    --depth* | --shallow* | --deepen* | --unshallow | --filter* | --reference* | --bare | --mirror | --template* | --separate-git-dir* | --recurs* | --local | -l | --shared | -s | --bundle-uri*) exec "$git" "$@" ;;
    -* | +* | refs/*) ;;
    http://* | https://* | ssh://* | git://* | file://*) url=\${url:-$word} ;;
    # The value of a \`-c\`, such as a proxy's address.
    *=*) ;;
    *@*:*) url=\${url:-$word} ;;
  esac
done
repository() { "$git" -C "$where" "$@" 2>/dev/null; }
if [ "$command" = fetch ]; then
  where=. fresh=
  objects=$(repository rev-parse --git-path objects) || exec "$git" "$@"
  for pack in "$objects"/pack/*.pack; do [ -e "$pack" ] || fresh=yes; done
  url=\${url:-$(repository config --get remote.origin.url)}
else
  where=$last fresh=yes
  if [ "$last" = "$url" ]; then where=\${url%/}; where=\${where##*/}; where=\${where##*:}; where=\${where%.git}; fi
  [ -z "$("$git" config --get init.templateDir)" ] || exec "$git" "$@"
fi
[ -n "$url" ] || exec "$git" "$@"
# A hash of an address without its log-in.
named() {
  address=$1
  case $address in
    *://*)
      path=\${address#*://}
      authority=\${path%%/*}
      address=\${address%%://*}://\${authority##*@}\${path#"$authority"}
      ;;
  esac
  address=\${address%/}
  printf %s "\${address%.git}" | sha256sum | cut -c 1-40
}
name=$(named "$url")
generation=
if [ -n "$fresh" ] && [ -e "$GIT_MIRRORS/$name/current" ]; then
  generation=$(readlink -f "$GIT_MIRRORS/$name/current")
  # Held until git ends.
  { command exec 9<"$generation/.in-use" && flock -s -n 9; } 2>/dev/null || generation=
  # To read from a mount that is read-only moves no time: the keeper is told. A folder, since what lies there may be another's link.
  [ -z "$generation" ] || [ ! -w "\${GIT_MIRROR_OFFERS:-}" ] || mkdir "$GIT_MIRROR_OFFERS/$name-used" 2>/dev/null
fi
if [ -n "$generation" ]; then
  if [ "$command" = fetch ]; then
    for pack in "$generation"/objects/pack/*.pack; do
      to=$objects/pack/\${pack##*/}
      # git looks for the index first.
      { cp "$pack" "$to" && cp "\${pack%.pack}.idx" "$objects/pack/tmp_idx_$$" && mv "$objects/pack/tmp_idx_$$" "\${to%.pack}.idx"; } 2>/dev/null || { rm -f "$to"; generation=; break; }
    done
  else
    export GIT_TEMPLATE_DIR="$generation/template"
  fi
fi
# The generation's tips, all of which the repository has now, are what git tells the server that it has.
[ -z "$generation" ] || export GIT_ALTERNATE_OBJECT_DIRECTORIES="$generation/objects"
# Whoever ends this shell means git.
run() {
  "$git" "$@" <&0 &
  child=$!
  trap 'kill "$child" 2>/dev/null; stopped=yes' TERM INT HUP
  wait "$child"
  code=$?
  # A signal ends the wait before git.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
  done
}
stopped=
run "$@"
if [ "$code" -ne 0 ] && [ -z "$stopped" ] && [ -n "$generation" ] && [ ! -e "$generation/.in-use" ]; then
  unset GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_TEMPLATE_DIR
  run "$@"
fi
trap - TERM INT HUP
unset GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_TEMPLATE_DIR
# Tags that the server has: later a build makes some of its own.
tags=$([ "$code" -ne 0 ] || [ -z "$fresh" ] || repository for-each-ref --format='%(refname)' refs/tags)
offer() {
  # Branches of \`origin\` are this address's where it is the origin's, or where all there is came with this fetch, before there is an origin.
  origin=$(repository config --get remote.origin.url)
  if [ -n "$origin" ]; then [ "$(named "$origin")" = "$name" ] || return; else [ -n "$fresh" ] || return; fi
  # Another agent is at it.
  [ -z "$(find "$GIT_MIRROR_OFFERS" -maxdepth 1 -name ".$name-*" -mmin -10)" ] || return
  [ "$(repository rev-parse --is-shallow-repository)" = false ] && [ -z "$(repository config --get-regexp promisor)" ] || return
  part=$(mktemp -u "$GIT_MIRROR_OFFERS/.$name-XXXXXX") || return
  # What the mirror has not: git makes no empty bundle. The memory is the build's: nothing is compressed anew.
  if { sed -n 's/^\\([0-9a-f]\\{40,64\\}\\) .*/^\\1/p' "$GIT_MIRRORS/$name/current/packed-refs"; [ -z "$tags" ] || printf '%s\\n' "$tags"; } |
    nice "$git" -c pack.threads=1 -c pack.window=0 -c pack.windowMemory=64m -C "$where" bundle create "$part" --ignore-missing --remotes=origin --stdin; then
    mv "$part" "$GIT_MIRROR_OFFERS/$name-\${part##*-}"
  fi
  rm -f "$part" "$part.lock"
}
if [ "$code" -eq 0 ] && [ -w "\${GIT_MIRROR_OFFERS:-}" ]; then offer </dev/null >/dev/null 2>&1 & fi
exit "$code"
`;

/**
 * Runs on every node as container `git` of the DaemonSet `agent-cache`, as the agents' user and with no right beyond its folders:
 * whatever an agent offers is hostile. A copy of it that no agent can reach is taken by `git fetch`, which computes the name of each
 * object and asks that each commit be whole. Above MAX_KIB the mirror goes that was used longest ago.
 * Bash, git from 2.32 on, GNU coreutils and findutils, flock; environment CACHE (git's folder), MAX_KIB, INTERVAL (seconds).
 */
export const gitKeeperScript = `set -u
shopt -s nullglob
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME=/nonexistent
trap 'exit 0' TERM INT
until cd "$CACHE"; do sleep 1; done 2>/dev/null
discard() {
  local each
  for each; do [ -L "$each" ] || chmod -R u+rwx "$each"; done 2>/dev/null
  rm -rf "$@"
}
# What a keeper that was killed left.
discard */work/* */mirrors/*/generations/.[0-9]* */mirrors/*/repo.git/objects/pack/{tmp_*,.tmp-*}
find . -path '*/repo.git/*' -name '*.lock' -delete
# Refs of repository $1 that are a folder of a ref of bundle $2, or lie in one: the server's were deleted since, which a bundle does not say.
outlived() {
  local ref up clash
  local -A theirs=() above=()
  while read -r _ ref; do
    [[ $ref == refs/* ]] || continue
    theirs[$ref]=yes up=$ref
    while [[ $up == */* ]]; do up=\${up%/*}; above[$up]=yes; done
  done < <(git bundle list-heads "$2")
  while read -r ref; do
    up=$ref clash=\${above[$ref]-}
    while [[ $up == */* ]] && [ -z "$clash" ]; do up=\${up%/*}; clash=\${theirs[$up]-}; done
    [ -z "$clash" ] || printf 'delete %s\\n' "$ref"
  done < <(git -C "$1" for-each-ref --format='%(refname)')
}
# Whether repository $1 is one, and has each of its tips: somebody may have deleted it as it was written to.
sound() {
  git --git-dir="$1" rev-parse -q --git-dir >/dev/null 2>&1 && ! git --git-dir="$1" for-each-ref --format='%(objectname)' | git --git-dir="$1" cat-file --batch-check | grep -q ' missing$'
}
take() {
  local offer=$1 moved group=\${1%%/*} name=\${1##*/} bundle mirror next number pack
  name=\${name%%-*} number=$(date +%s%N)
  moved=$group/work/offer-$number bundle=$PWD/$group/work/bundle-$number mirror=$group/mirrors/$name
  [[ $name =~ ^[0-9a-f]{40}$ ]] || return
  if [ "\${offer##*-}" = used ]; then
    [ ! -e "$mirror/current" ] || touch -c -a "$mirror/current/.in-use"
    return
  fi
  [ -f "$offer" ] && [ ! -L "$offer" ] && mv -T "$offer" "$moved" && [ -f "$moved" ] && [ ! -L "$moved" ] && [ "$(stat -c %s "$moved")" -le "$((MAX_KIB * 512))" ] || return
  # Whoever still has it open may go on writing to it; and a file that is no bundle git would take for the name of a repository.
  cp "$moved" "$bundle" && [[ $(head -c 15 "$bundle" | tr -d '\\0') == "# v"[23]" git bundle" ]] || return
  # What agents offer lies upon what the mirror has.
  [ ! -e "$mirror" ] || sound "$mirror/repo.git" || { echo "$mirror: not whole, begun anew"; discard "$mirror"; }
  mkdir -p "$mirror/generations" && { [ -e "$mirror/repo.git" ] || git init -q --bare "$mirror/repo.git"; } || return
  outlived "$mirror/repo.git" "$bundle" | git -C "$mirror/repo.git" update-ref --stdin || return
  git -C "$mirror/repo.git" -c gc.auto=0 -c fetch.unpackLimit=1 fetch -q --no-tags --no-write-fetch-head "$bundle" '+refs/remotes/origin/*:refs/remotes/origin/*' '+refs/tags/*:refs/tags/*' || { rm -f "$mirror"/repo.git/objects/pack/tmp_*; return 1; }
  # No object is ever left out, so that each generation has what the one before had.
  git -C "$mirror/repo.git" repack -q -d --geometric=2 && git -C "$mirror/repo.git" pack-refs --all && [ -e "$mirror/repo.git/packed-refs" ] || return
  if cmp -s "$mirror/repo.git/packed-refs" "$mirror/current/packed-refs"; then return; fi
  next=$mirror/generations/.$number
  mkdir -p "$next/refs" "$next/objects/pack" "$next"/template/{objects/pack,info,hooks} && cp "$mirror"/repo.git/{HEAD,packed-refs} "$next/" && echo >"$next/.in-use" && : >"$next/template/info/exclude" || return
  for pack in "$mirror"/repo.git/objects/pack/*.{pack,idx}; do ln "$pack" "$next/objects/pack/" && ln "$pack" "$next/template/objects/pack/" || return; done
  mv -T "$next" "$mirror/generations/$number" && ln -sfn "generations/$number" "$mirror/.current" && mv -T "$mirror/.current" "$mirror/current" || return
  echo "$mirror: generation $number, $(du -sk "$mirror/repo.git" | cut -f1) KiB"
}
while :; do
  for offer in */offers/*; do
    take "$offer" || printf 'could not take %q over\\n' "$offer"
    discard "$offer" "\${offer%%/*}"/work/*
  done
  # Half offers of agents that were killed, and mirrors whose first offer was none.
  for half in */offers/.[!.]*; do
    [ -z "$(find "$half" -maxdepth 0 -mmin +60 2>/dev/null)" ] || discard "$half"
  done
  for mirror in */mirrors/*; do
    [ -e "$mirror/current" ] || rm -rf "$mirror"
    now=$(readlink "$mirror/current")
    for generation in "$mirror"/generations/*; do
      [ "generations/\${generation##*/}" = "$now" ] || flock -n -x "$generation/.in-use" rm -rf "$generation"
    done
  done
  # By when an agent last said that it reads one; hard links count once.
  locks=(*/mirrors/*/current/.in-use)
  [ "\${#locks[@]}" -eq 0 ] || used=$(du -skc */mirrors 2>/dev/null | tail -n 1 | cut -f1)
  while IFS= read -r lock && [ "\${used:-0}" -gt "$MAX_KIB" ]; do
    mirror=\${lock%/current/.in-use}
    size=$(du -sk "$mirror" | cut -f1)
    flock -n -x "$lock" rm -rf "$mirror" || continue
    echo "mirrors take $used KiB of $MAX_KIB: $mirror, $size KiB, is thrown away"
    used=$((used - size))
  done < <([ "\${#locks[@]}" -eq 0 ] || ls -tru "\${locks[@]}" 2>/dev/null)
  sleep "$INTERVAL" & wait $!
done
`;

/** Makes the ConfigMap with the script, where an agent has it. */
export function makeAgentGit({ name, parent, there }: Place, templates: Cached[]): void {
  if (gitFolders(templates).length > 0) new k8s.core.v1.ConfigMap(`${name}-${configMapName}`, { metadata: { name: configMapName, namespace: there, labels }, data: { git: gitScript } }, parent);
}
