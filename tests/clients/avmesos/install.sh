#!/bin/sh
# install.sh DIR: puts the unmodified avmesos 0.4.2 from PyPI into DIR/venv.
set -eu
dir=$1
[ ! -e "$dir/installed" ] || exit 0
rm -rf "$dir"; mkdir -p "$dir"
"${PYTHON:-python3}" -m venv "$dir/venv"
"$dir/venv/bin/pip" --disable-pip-version-check install -q 'avmesos==0.4.2'
"$dir/venv/bin/python" -c 'import avmesos.client'
touch "$dir/installed"
