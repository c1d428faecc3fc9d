# For bash: `tail -F` follows a journal that grows and is rotated, `inotifywait` tells what comes into a directory.  Every
# line and every name has to arrive, once.  An event that nobody has read when the dump is made is lost, and the program
# notices the change with the next one: what has not arrived in time is touched.  CRIU loses some; criupy waits a little.  The count is in the file "beat".
set -u
. "${0%/*}/selfcheck.sh"

mkdir spool
: >journal
: >names
tail -F -n +1 journal >lines 2>tail.err &
follower=$!
inotifywait -q -m -e create -e attrib --format %f spool >names 2>/dev/null &
watcher=$!

# arrives FILE LINE TOUCHED: until a line is in the file.
arrives() {
    local i
    for ((i = 1; i < 1500; i++)); do
        grep -qx "$2" "$1" && return
        [ $((i % 50)) != 0 ] || touch "$3"
        sleep 0.02
    done
    fail "\"$2\" never came into $1"
}

round() { # round NUMBER
    if [ $(($1 % 5)) = 0 ]; then
        mv journal "journal.old"
        : >journal
    fi
    echo "line $1" >>journal
    arrives lines "line $1" journal
    : >"spool/name-$1"
    arrives names "name-$1" "spool/name-$1"
    beat $(($1 + 1))
}

count=0
while [ ! -e go ]; do
    round $count
    count=$((count + 1))
    [ $count != 3 ] || echo ready >&2
done
round $count
kill $follower $watcher
wait_for $follower
[ $? = 143 ] || fail "tail ended by itself"
wait_for $watcher
[ $? = 143 ] || fail "inotifywait ended by itself"
[ "$(uniq lines | wc -l)" = $((count + 1)) ] || fail "$(wc -l <lines) lines of $((count + 1)) came"
[ "$(sort -u names | wc -l)" = $((count + 1)) ] || fail "$(wc -l <names) names of $((count + 1)) came"
echo PASS >&2
