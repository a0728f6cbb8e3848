#!/usr/bin/env bash
# Goal: a second client, libnfs, which shares no code with the kernel's and caches nothing, sees the same
# tree; a file that it has open goes on over a repoint and over a killed daemon.
# Method: libnfs.py takes the inventory of a clone and of a version and holds a file; Debian's own tools
# list, read and copy. Needs neither root nor a guest.
# shellcheck disable=SC2317  # functions are called by name, through check
. "$(dirname -- "${BASH_SOURCE[0]}")/lib.sh"
. "$KERNEL_DIR/trees.sh"
for tool in nfs-ls nfs-cat nfs-cp; do
  command -v "$tool" >/dev/null || { skip "${0##*/}" "no $tool here: apt-get install libnfs-utils"; finish; }
done

make_versions "$WORK"
TREE=$WORK/v1
for size in 0 1 4095 4096 65537 1048576 5000011; do head -c "$size" /dev/urandom >"$TREE/of-$size"; done
truncate -s 3M "$TREE/hole" && printf 'end' >>"$TREE/hole"
printf 'with a space' >"$TREE/a name"
printf 'not UTF-8' >"$TREE/$(printf 'caf\351')"
mkfifo "$TREE/fifo"
chmod 4750 "$TREE/of-1"

daemon_start
must mimeo image import lib "$TREE"
must mimeo clone create lib --count 10 --name 'desk-{}'
must mimeo clone create lib desk

# --- the tree -------------------------------------------------------------------------------------

client() { timeout 300 /usr/bin/python3 -B "$KERNEL_DIR/libnfs.py" "$@"; }
same_tree() {
  client inventory "$PORT" "$1" "$WORK/served.tsv" && diff "$WORK/source.tsv" "$WORK/served.tsv"
}
"$KERNEL_DIR/inventory.py" --source "$TREE" "$WORK/source.tsv"
check "a clone equals its source ($(wc -l <"$WORK/source.tsv") objects)" same_tree /clones/desk
check "the version equals its source" same_tree /images/lib@v1

# --- Debian's tools -------------------------------------------------------------------------------

url() { printf 'nfs://127.0.0.1%s?nfsport=%s&mountport=%s&version=3' "$1" "$PORT" "$PORT"; }
nfs() { timeout 60 "$@"; }
# Mode, links, owner, group, size and name, as `nfs-ls` prints them: it knows files, directories and links, and
# no set-user-id; sizes of files alone.
listed() { sed -E 's/ +/ /g; s/^(...)s/\1x/' | grep '^[-dl]' | sort; }
expected() {
  find "$1" -mindepth 1 -maxdepth 1 -printf '%M %n %U %G %y %s %f\n' |
    awk '{ if ($5 != "f") $6 = "-"; $5 = ""; print }' | listed
}
served() { nfs nfs-ls "$(url "$1")" | awk '{ if ($1 !~ /^-/) $5 = "-"; print }' | listed; }
same_listing() { diff <(expected "$1") <(served "$2"); }
same_bytes() { nfs nfs-cat "$(url "$2")" >"$WORK/out" && cmp "$1" "$WORK/out"; }
copied_out() { nfs nfs-cp "$(url "$2")" "$WORK/copied" && cmp "$1" "$WORK/copied"; }

check "nfs-ls: the root of a clone" same_listing "$TREE" /clones/desk
for file in "$TREE"/of-* "$TREE/hole"; do
  check "nfs-cat: ${file##*/}" same_bytes "$file" "/clones/desk/${file##*/}"
done
check "nfs-cp: a file comes out whole" copied_out "$TREE/of-5000011" /clones/desk/of-5000011
for file in of-4095 of-5000011; do
  check "nfs-cp: $file goes into a clone" nfs nfs-cp "$TREE/$file" "$(url "/clones/desk-3/new-$file")"
  check "nfs-cp: and reads back" same_bytes "$TREE/$file" "/clones/desk-3/new-$file"
done
refuses "nfs-cat: other clones do not have it" 'NOENT' nfs nfs-cat "$(url /clones/desk/new-of-4095)"
refuses "nfs-cp: a write into a version is refused" 'ROFS|ACCES|read-only|permission' nfs nfs-cp "$TREE/of-4095" "$(url /images/lib@v1/new)"
refuses "mount: an unknown clone" 'NOENT|mount' nfs nfs-ls "$(url /clones/nobody)"
refuses "mount: the parent of all clones" 'mount|NOENT|ACCES' nfs nfs-ls "$(url /clones)"

# --- an open file ---------------------------------------------------------------------------------

coproc HOLD { client hold "$PORT" /clones/desk change/big; }
# look: sets HELD, FRESH and INO to what the client reads now.
look() {
  echo >&"${HOLD[1]}"
  read -r -t 60 _ HELD _ FRESH _ INO <&"${HOLD[0]}" || die "the client that holds a file gave no answer"
}
look
OLD=$HELD INO_OLD=$INO
must mimeo image import lib "$WORK/v2"
look
check "an import alone changes nothing" test "$HELD $FRESH $INO" = "$OLD $OLD $INO_OLD"
check "repoint: private writes are not dropped unasked, a dry run says" \
  sh -c "MIMEO_DATA='$DATA' '$MIMEO' repoint lib --to lib@v2 --dry-run --json | jq -e '.kept == 1 and .discarded == 0'"
must mimeo repoint lib --to lib@v2 --writes discard
check "repoint: what was discarded is in a snapshot" sh -c "MIMEO_DATA='$DATA' '$MIMEO' clone show desk-3 --json | jq -e '.snapshots == 1'"
look
check "repoint: the open file has its old bytes" test "$HELD" = "$OLD"
check "repoint: a fresh open has new bytes, at once" test "$FRESH" != "$OLD"
check "repoint: under a new fileid" test "$INO" != "$INO_OLD"
NEW=$FRESH INO_NEW=$INO
daemon_stop KILL
daemon_start
look
check "killed: the open file has its old bytes" test "$HELD" = "$OLD"
check "killed: a fresh open has the new ones" test "$FRESH $INO" = "$NEW $INO_NEW"
must mimeo repoint lib --to lib@v1
look
check "back: both read the old bytes, under the first fileid" test "$HELD $FRESH $INO" = "$OLD $OLD $INO_OLD"
eval "exec ${HOLD[1]}>&-"
wait "$HOLD_PID" 2>/dev/null || true
finish
