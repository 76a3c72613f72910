# shellcheck shell=bash
# Processes that run beside a script and end with it, however it ends: each watches its standard input, which is a pipe
# whose other side only the script holds.

declare -A service_pids=()
service_inputs=()
services_directory=

# services_in DIRECTORY: where their output goes; to be called first.
services_in() {
    services_directory=$1
}

# start_service NAME COMMAND...
start_service() {
    local name=$1 pipe=$services_directory/$1.stdin input
    mkfifo "$pipe"
    (
        # Not the others' pipes: they would stay open when the script is killed.
        for input in "${service_inputs[@]}"; do
            exec {input}>&-
        done
        # A session of its own: Ctrl-C is for the script, which ends its services in order.
        exec setsid "${@:2}" <"$pipe" >"$services_directory/$name.out" 2>"$services_directory/$name.err"
    ) &
    service_pids[$name]=$!
    exec {input}>"$pipe"
    service_inputs+=("$input")
}

# service_ready NAME SECONDS: prints the line that begins with READY.
service_ready() {
    local name=$1 deadline=$((SECONDS + $2)) line
    until line=$(grep --max-count=1 '^READY' "$services_directory/$name.out" 2>/dev/null); do
        kill -0 "${service_pids[$name]}" 2>/dev/null || die "$name did not start:"$'\n'"$(tail -n 30 "$services_directory/$name.err")"
        ((SECONDS < deadline)) || die "$name is not ready after $2 s:"$'\n'"$(tail -n 30 "$services_directory/$name.err")"
        sleep 0.05
    done
    printf '%s\n' "$line"
}

# word KEY LINE: the value of KEY=VALUE in a READY line.
word() {
    local pair
    for pair in $2; do
        [[ $pair != "$1="* ]] || printf '%s\n' "${pair#*=}"
    done
}

# wait_for WHAT SECONDS COMMAND...
wait_for() {
    local what=$1 deadline=$((SECONDS + $2))
    until "${@:3}"; do
        ((SECONDS < deadline)) || die "$what is not there after $2 s"
        sleep 0.1
    done
}

# Returns when a service ends, which none should.
wait_for_end() {
    wait -n || true
    die "a service ended by itself:"$'\n'"$(tail -n 20 "$services_directory"/*.err)"
}

stop_services() {
    local input pid
    for input in "${service_inputs[@]}"; do
        exec {input}>&-
    done
    for pid in "${service_pids[@]}"; do
        wait "$pid" || true
    done
}
