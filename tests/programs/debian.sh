#!/bin/sh
# Debian packages into a folder, without root: debian.sh FOLDER PACKAGE…
# apt checks the signatures. No version is pinned: Debian keeps only the newest of a release.
set -eu
mkdir -p "$1" && cd "$1" && shift
mkdir -p lists/partial cache/archives/partial
apt() { apt-get -qq -o Acquire::http::Timeout=20 -o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD/cache" "$@"; }
apt update
apt download "$@"
for package in *.deb; do dpkg -x "$package" .; done
rm -rf lists cache *.deb
