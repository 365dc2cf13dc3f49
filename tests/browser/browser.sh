#!/usr/bin/env bash
# What the tests of report.html need: Debian's Chromium with its driver, and axe-core from npm.
#
#   browser.sh install FOLDER   what is missing of the packages, by apt-get as root; axe.min.js into FOLDER
set -euo pipefail

packages=(chromium chromium-driver)
axe=4.14.1

fail() { echo "browser.sh: $*" >&2; exit 1; }

install() {
    local package missing=()
    for package in "${packages[@]}"; do
        [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    command -v npm >/dev/null || missing+=(npm)
    if ((${#missing[@]})); then
        command -v apt-get >/dev/null || fail "needs apt-get to install ${missing[*]}"
        [[ $(id --user) == 0 ]] || fail "needs root to install ${missing[*]}"
        local said
        said=$({ apt-get update --quiet && DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes \
            --no-install-recommends "${missing[@]}"; } 2>&1) || fail "apt-get: ${said: -600}"
    fi
    cd "$1"
    npm pack --silent "axe-core@$axe" >/dev/null || fail "npm cannot fetch axe-core $axe"
    tar --extract --gzip --strip-components=1 --file "axe-core-$axe.tgz" package/axe.min.js
}

[[ ${1:-} == install && -d ${2:-} ]] || fail "install FOLDER"
install "$2"
