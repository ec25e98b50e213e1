#!/bin/sh
# install.sh DIR: puts the unmodified pymesos 0.3.15 from PyPI into DIR/venv.
# The C source of its HTTP parser was generated for Python 3.10 and older; here it is generated anew from the package's
# own .pyx file, so that the system's Python does.
set -eu
dir=$1
[ ! -e "$dir/installed" ] || exit 0
rm -rf "$dir"; mkdir -p "$dir"
"${PYTHON:-python3}" -m venv "$dir/venv"
pip="$dir/venv/bin/pip --disable-pip-version-check"
$pip install -q 'cython==0.29.37' 'setuptools<81' wheel
$pip download -q --no-deps --no-binary :all: --no-build-isolation -d "$dir" 'http-parser==0.9.0'
tar -xzf "$dir/http-parser-0.9.0.tar.gz" -C "$dir"
"$dir/venv/bin/cython" "$dir/http-parser-0.9.0/http_parser/parser.pyx" -o "$dir/http-parser-0.9.0/http_parser/parser.c" 2>/dev/null
$pip install -q --no-build-isolation "$dir/http-parser-0.9.0"
$pip install -q 'pymesos==0.3.15' 'kazoo==2.11.0'
"$dir/venv/bin/python" -c 'import pymesos'
touch "$dir/installed"
