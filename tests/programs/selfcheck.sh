# What scripts for bash under test share, which source it; selfcheck.h is for C.

fail() {
    echo "FAIL: $*" >&2
    exit 1
}

beat() { # beat COUNT: as eight bytes, the lowest first
    local count=$1 text='' i
    for i in 1 2 3 4 5 6 7 8; do
        printf -v text '%s\\x%02x' "$text" $((count & 255))
        count=$((count >> 8))
    done
    # shellcheck disable=SC2059  # the bytes are in the format
    printf "$text" 1<>beat
}

# wait_for PID: as wait does, which returns more than 128 also when a signal has been caught meanwhile.
wait_for() {
    local i
    for ((i = 0; i < 10000; i++)); do
        wait "$1"
        status=$?
        [ $status -gt 128 ] || return $status
    done
    return $status
}
