#!/bin/sh
# Install what building and testing need and this machine lacks, from Debian's (or Ubuntu's)
# packages. Says what it does; asks sudo only when something is missing.
# usage: deps.sh
set -e
packages="gcc libc6-dev make pkg-config libjansson-dev libpcre2-dev libutf8proc-dev liburing-dev
libcurl4-openssl-dev libmicrohttpd-dev libedit-dev libcmocka-dev python3"

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "deps: this is not a Debian system; flash-moe needs what these packages hold:"
    echo $packages
    exit 0
fi
missing=
for package in $packages; do
    case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
    *" installed") ;;
    *) missing="$missing $package" ;;
    esac
done
# Any variant of libcurl's headers will do.
if pkg-config --exists libcurl 2>/dev/null; then
    missing=$(echo "$missing" | sed 's/ libcurl4-openssl-dev//')
fi
[ -n "$missing" ] || exit 0
echo "deps: installing from the distribution's packages:$missing"
root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "deps: run as root: apt-get install$missing" >&2
        exit 1
    fi
    root=sudo
fi
$root apt-get update -qq
$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
