#!/bin/sh
# install.sh DIR: puts the unmodified mesos-framework 0.5.3 from npm into DIR.
set -eu
dir=$1
[ ! -e "$dir/installed" ] || exit 0
rm -rf "$dir"; mkdir -p "$dir"; cd "$dir"
echo '{"name":"check","version":"1.0.0","private":true}' >package.json
npm install --silent --no-audit --no-fund 'mesos-framework@0.5.3' >/dev/null
touch installed
