/* mlock and every advice that stays with a mapping, read back from the VmFlags of smaps. */
#include "selfcheck.h"
#include <sys/mman.h>
#include <sys/resource.h>

#define PAGE 4096
#define SIZE (4 * PAGE)

static const struct { int advice; const char *flag; } advice[] = {
	{ MADV_DONTFORK, "dc" },   { MADV_DONTDUMP, "dd" }, { MADV_HUGEPAGE, "hg" }, { MADV_NOHUGEPAGE, "nh" },
	{ MADV_SEQUENTIAL, "sr" }, { MADV_RANDOM, "rr" },   { MADV_MERGEABLE, "mg" }, { MADV_WIPEONFORK, "wf" },
};
#define ADVICES (sizeof(advice) / sizeof(*advice))

/* The VmFlags of the mapping that starts at `address`, with a blank before and after each. */
static const char *flags_of(const void *address)
{
	static char line[512];
	char start[32];
	int found = 0;
	FILE *smaps = fopen("/proc/self/smaps", "re");

	MUST(smaps != NULL);
	snprintf(start, sizeof(start), "%lx-", (unsigned long)address);
	while (fgets(line, sizeof(line), smaps) != NULL) {
		if (strncmp(line, start, strlen(start)) == 0)
			found = 1;
		if (found && strncmp(line, "VmFlags:", 8) == 0)
			break;
	}
	fclose(smaps);
	return found ? line + 8 : "";
}

static int has(const void *address, const char *flag)
{
	char word[8];

	snprintf(word, sizeof(word), " %s ", flag);
	return strstr(flags_of(address), word) != NULL;
}

static char *map(void)
{
	/* A hole on either side, so that no mapping is merged with another. */
	char *at = mmap(NULL, SIZE + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(at != MAP_FAILED && munmap(at, PAGE) == 0 && munmap(at + PAGE + SIZE, PAGE) == 0);
	MUST(mprotect(at + PAGE, SIZE, PROT_READ | PROT_WRITE) == 0);
	return at + PAGE;
}

int main(void)
{
	char *areas[ADVICES], *locked = map(), *on_fault = map();
	int given[ADVICES];

	for (size_t i = 0; i < ADVICES; i++) {
		areas[i] = map();
		memset(areas[i], 'a' + i, PAGE);
		given[i] = madvise(areas[i], SIZE, advice[i].advice) == 0; /* not every kernel has KSM or THP */
		if (given[i])
			MUST(has(areas[i], advice[i].flag));
	}
	MUST(mlock(locked, SIZE) == 0);
	MUST(mlock2(on_fault, SIZE, MLOCK_ONFAULT) == 0);
	ready();
	for (size_t i = 0; i < ADVICES; i++) {
		CHECK_EQ(areas[i][7], 'a' + i);
		for (size_t j = 0; j < ADVICES; j++)
			if (has(areas[i], advice[j].flag) != (i == j && given[i])) {
				selfcheck_failures++;
				say("FAIL: mapping with %s has flags %s", advice[i].flag, flags_of(areas[i]));
			}
	}
	CHECK(has(locked, "lo"));
	CHECK(has(on_fault, "lo"));
	const char *kib = proc_field("/proc/self/status", "VmLck:");
	CHECK(kib != NULL && atoi(kib) == 2 * SIZE / 1024);
	return verdict();
}
