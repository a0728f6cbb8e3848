#!/usr/bin/env bash
# Goal: a second client, libnfs, which shares no code with the kernel's, sees the same tree.
# Method: its own tools list a clone and read files of awkward sizes by their handles.
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
for tool in nfs-ls nfs-cat nfs-cp; do
  command -v "$tool" >/dev/null || { skip "${0##*/}" "no $tool here: apt-get install libnfs-utils"; finish; }
done

TREE=$WORK/tree
mkdir -p "$TREE/sub/deeper"
for size in 0 1 4095 4096 65537 1048576 5000011; do head -c "$size" /dev/urandom >"$TREE/of-$size"; done
truncate -s 3M "$TREE/hole" && printf 'end' >>"$TREE/hole"
printf 'with a space' >"$TREE/a name"
head -c 70000 /dev/urandom >"$TREE/sub/deeper/file"
ln -s of-1 "$TREE/sym"
chmod 0640 "$TREE/of-1"

daemon_start
must mimeo image import lib "$TREE"
must mimeo clone create lib desk

OPTIONS="nfsport=$PORT&mountport=$PORT&version=3"
url() { printf 'nfs://127.0.0.1%s?%s' "$1" "$OPTIONS"; }
nfs() { timeout 60 "$@"; }

# listed: mode, links, owner, group and size of all files and directories, as `nfs-ls` prints them.
listed() { sed -E 's/ +/ /g' | sort; }
expected() {
  (cd "$1" && find . -mindepth 1 -maxdepth 1 -printf '%M %n %U %G %y %s %f\n') |
    awk '{ if ($5 == "d" || $5 == "l") $6 = "-"; $5 = ""; print }' | listed
}
served() { nfs nfs-ls "$(url "$1")" | awk '{ if ($1 ~ /^[dl]/) $5 = "-"; print }' | listed; }
same_listing() { diff <(expected "$1") <(served "$2"); }
same_bytes() { cmp "$1" <(nfs nfs-cat "$(url "$2")"); }

check "nfs-ls: the root of a clone" same_listing "$TREE" /clones/desk
check "nfs-ls: the version" same_listing "$TREE" /images/lib@v1
for file in "$TREE"/of-* "$TREE/hole"; do
  check "nfs-cat: ${file##*/}" same_bytes "$file" "/clones/desk/${file##*/}"
done
check "nfs-cp: a file comes out whole" \
  bash -c "timeout 60 nfs-cp '$(url /clones/desk/of-5000011)' '$WORK/out' && cmp '$TREE/of-5000011' '$WORK/out'"

refuses "nfs-cp: a write is refused" 'ROFS|ACCES|read-only|permission' nfs nfs-cp "$TREE/of-1" "$(url /clones/desk/new)"
refuses "mount: an unknown clone" 'NOENT|mount' nfs nfs-ls "$(url /clones/nobody)"
refuses "mount: the parent of all clones" 'mount|NOENT|ACCES' nfs nfs-ls "$(url /clones)"

# libnfs again after a restart that was not orderly: a new session, the same tree.
daemon_stop KILL
daemon_start
check "nfs-cat: after SIGKILL and a restart" same_bytes "$TREE/of-1048576" /clones/desk/of-1048576
finish
