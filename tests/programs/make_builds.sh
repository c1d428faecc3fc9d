# For bash: make -j3 builds a small tree of files again and again; every file is right and was made once in each build.
# The count of builds is in the file "beat".
set -u
. "${0%/*}/selfcheck.sh"

FILES=24

cat >Makefile <<'END'
.DELETE_ON_ERROR:
all: $(patsubst %,out/%.b,$(FILES))
out/%.a:
	@echo $@ >>made; sleep 0.03; seq $* 500 | sha256sum >$@
out/%.b: out/%.a
	@sleep 0.02; echo $@ >>made; sha256sum <$< >$@
END
names=$(seq -s ' ' $FILES)
expected=()
for i in $names; do
    expected[i]=$(seq "$i" 500 | sha256sum | sha256sum)
done
options=(--silent -j3 "FILES=$names")
# A named pipe in /tmp is what newer ones would use else.
! make --help | grep -q jobserver-style || options+=(--jobserver-style=pipe)

builds=0
while [ ! -e go ] || [ $builds = 0 ]; do
    rm -rf out made
    mkdir out
    make "${options[@]}" || fail "make ended with $?"
    for i in $names; do
        read -r line <"out/$i.b" || fail "out/$i.b is missing"
        [ "$line" = "${expected[i]}" ] || fail "out/$i.b is $line"
    done
    made="$(sort -u made | wc -l) $(wc -l <made)"
    [ "$made" = "$((2 * FILES)) $((2 * FILES))" ] || fail "made otherwise, $made: $(sort made)"
    builds=$((builds + 1))
    beat $builds
    [ $builds != 1 ] || echo ready >&2
done
echo PASS >&2
