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

need_rust() {
    command -v cargo >/dev/null || die "cargo is missing: install Rust (https://rustup.rs), or put ~/.cargo/bin in PATH"
    command -v cc >/dev/null || die "a C compiler is missing: apt-get install build-essential"
}

# with_progress COUNT EVERY WHAT SHOW LOG COMMAND...: runs a command and says now and then how many lines match COUNT; lines
# that match SHOW are shown.
with_progress() {
    local count=$1 every=$2 what=$3 show=$4 log=$5
    shift 5
    if ! "$@" 2>&1 | tee "$log" | awk -v count="$count" -v every="$every" -v what="$what" -v show="$show" '
            $0 ~ count && ++counted % every == 0 { print "  " counted " of " what; fflush() }
            $0 ~ show { sub(/^ */, "  "); print; fflush() }' >&2; then
        die "$1 failed, see $log:"$'\n'"$(tail -n 30 "$log")"
    fi
}
