/* What PR_SET_MM_MAP sets: command line, environment, auxiliary vector, exe, and the marks of code, data, heap, stack. */
#include "selfcheck.h"
#include <sys/auxv.h>

static char before[8][4096];
static const char *const files[] = { "cmdline", "environ", "auxv" };

static size_t slurp(const char *name, char *to)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/%s", name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	MUST(fd >= 0);
	ssize_t size = read(fd, to, 4096);
	MUST(size >= 0);
	close(fd);
	return size;
}

/* Fields 26 to 28 and 45 to 51 of stat: start of code, its end, start of stack; data, brk, arguments, environment. */
static int layout(char *to)
{
	static char text[4096];
	int field = 2, length = 0;

	text[slurp("stat", text)] = 0;
	for (char *word = strtok(strrchr(text, ')') + 1, " "); word != NULL; word = strtok(NULL, " ")) {
		field++;
		if ((field >= 26 && field <= 28) || (field >= 45 && field <= 51))
			length += sprintf(to + length, "%s ", word);
	}
	return length;
}

int main(int argc, char **argv)
{
	size_t sizes[3];
	char now[4096], exe[2][512] = { "", "" };

	MUST(argc == 1 && argv[0] != NULL);
	for (int i = 0; i < 3; i++)
		sizes[i] = slurp(files[i], before[i]);
	layout(before[3]);
	MUST(readlink("/proc/self/exe", exe[0], sizeof(exe[0]) - 1) > 0);
	ready();
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(slurp(files[i], now), sizes[i]);
		CHECK(memcmp(now, before[i], sizes[i]) == 0);
	}
	memset(now, 0, sizeof(now));
	layout(now);
	if (strcmp(now, before[3]) != 0) {
		selfcheck_failures++;
		say("FAIL: layout was %s, is %s", before[3], now);
	}
	CHECK(readlink("/proc/self/exe", exe[1], sizeof(exe[1]) - 1) > 0 && strcmp(exe[0], exe[1]) == 0);
	CHECK(getauxval(AT_SYSINFO_EHDR) != 0);
	CHECK(memcmp((void *)getauxval(AT_SYSINFO_EHDR), "\177ELF", 4) == 0);
	return verdict();
}
