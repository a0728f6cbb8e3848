# Sourced by scripts that need a small tree and a patched copy of it.
# shellcheck shell=bash

# make_versions DIR: DIR/v1, and DIR/v2 that differs from it in each way that a patch can.
make_versions() {
  local v1=$1/v1 v2=$1/v2
  mkdir -p "$v1"/{keep,change,dir/sub}
  cp -a /usr/lib/python3/. "$v1/keep/"
  head -c 8M /dev/urandom >"$v1/keep/big"
  ln "$v1/keep/big" "$v1/keep/big-too"
  ln -s ../keep/big "$v1/keep/sym"
  head -c 16M /dev/urandom >"$v1/change/big"
  echo "first version" >"$v1/change/small"
  echo "same size, v1" >"$v1/change/same-size-and-mtime"
  echo "by its mode alone" >"$v1/change/mode"
  echo "gone in v2" >"$v1/change/gone"
  echo "under its old name" >"$v1/change/old-name"
  ln -s target-1 "$v1/change/sym"
  echo "a file in v1" >"$v1/change/kind"
  seq 1 2000 >"$v1/dir/sub/kept"

  cp -a "$v1" "$v2"
  head -c 16M /dev/urandom >"$v2/change/big"
  echo "second version, and longer" >"$v2/change/small"
  echo "same size, v2" >"$v2/change/same-size-and-mtime"
  touch -r "$v1/change/same-size-and-mtime" "$v2/change/same-size-and-mtime"
  chmod 0600 "$v2/change/mode"
  rm "$v2/change/gone" "$v2/change/kind"
  mv "$v2/change/old-name" "$v2/change/new-name"
  ln -sfn target-2 "$v2/change/sym"
  mkdir "$v2/change/kind"
  echo "added in v2" >"$v2/change/added"
  echo "beside the kept one" >"$v2/dir/sub/added"
}
