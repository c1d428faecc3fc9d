# For bash: a pipeline in the background whose last part checks that no line is lost, doubled or wrong; a job that sends
# signals; a trap that counts them.  The count of lines is in the file "beat".
set -u -o pipefail
. "${0%/*}/selfcheck.sh"

generate() {
    local n=0 i
    while [ ! -e go ]; do
        for ((i = 0; i < 20; i++)); do
            echo "$n"
            n=$((n + 1))
        done
        sleep 0.02
    done
    echo "end $n"
}

square() {
    local word rest
    while read -r word rest; do
        if [ "$word" = end ]; then
            echo "$word $rest"
        else
            echo "$word $((word * word % 1000003))"
        fi
    done
}

consume() {
    local expected=0 sum=0 word rest
    while read -r word rest; do
        if [ "$word" = end ]; then
            [ "$rest" = "$expected" ] || fail "$expected lines came, $rest were sent"
            [ "$sum" = "$(sum_of "$expected")" ] || fail "the sum is $sum"
            echo "$expected" >consumed
            return 0
        fi
        [ "$word" = "$expected" ] || fail "line $word came, not $expected"
        sum=$(((sum * 31 + rest) % 1000003))
        expected=$((expected + 1))
        [ $((expected % 10)) != 0 ] || beat "$expected"
    done
    fail "the pipe ended after $expected lines"
}

sum_of() { # sum_of COUNT: the same, without a pipe
    local sum=0 n
    for ((n = 0; n < $1; n++)); do
        sum=$(((sum * 31 + n * n % 1000003) % 1000003))
    done
    echo "$sum"
}

caught=0
trap 'caught=$((caught + 1))' USR1
{ generate | square | consume; } &
pipeline=$!
while [ ! -e go ]; do
    kill -USR1 $$
    sleep 0.1
done &
signals=$!
while [ ! -e beat ]; do
    sleep 0.01
done
echo ready >&2
wait_for $pipeline || fail "the pipeline ended with $?"
wait_for $signals || fail "the job ended with $?"
[ -s consumed ] || fail "nothing was consumed"
before=$caught
[ "$before" -gt 0 ] || fail "no signal came"
kill -USR1 $$
[ "$caught" = $((before + 1)) ] || fail "the trap did not run: $caught after $before"
echo PASS >&2
