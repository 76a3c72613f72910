# shellcheck shell=bash
# Words and checks that the scripts of the local environment share.

say() {
    printf '%s\n' "$*" >&2
}

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Runs a command and shows its output only when it fails.
quietly() {
    local output
    if ! output=$("$@" 2>&1); then
        die "$* failed:"$'\n'"$(tail -n 20 <<<"$output")"
    fi
}

# need_disk DIRECTORY GIGABYTES
need_disk() {
    local free
    mkdir -p "$1"
    free=$(df --output=avail --block-size=1M "$1" | tail -n1)
    ((free >= $2 * 1024)) || die "$1 has $((free / 1024)) GB free, and $2 GB are needed: make room, or name another" \
        "place with ECR_OPERATOR_CACHE (for tools) or TMPDIR (for clusters)"
}
