/* Guard regions (MADV_GUARD_INSTALL): pages inside a mapping that fault, in the middle of pages with content. */
#include "selfcheck.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#define PAGE 4096

static sigjmp_buf back;

static void on_fault(int signal)
{
	siglongjmp(back, signal);
}

static int faults(volatile char *at)
{
	if (sigsetjmp(back, 1) != 0)
		return 1;
	(void)*at;
	return 0;
}

int main(void)
{
	char *area = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(area != MAP_FAILED && signal(SIGSEGV, on_fault) != SIG_ERR);
	memset(area, 'a', 16 * PAGE);
	if (madvise(area + 4 * PAGE, 3 * PAGE, MADV_GUARD_INSTALL) != 0)
		unsupported("guard regions");
	ready();
	for (int i = 0; i < 16; i++)
		CHECK_EQ(faults(area + i * PAGE), i >= 4 && i < 7);
	for (int i = 0; i < 16; i++)
		if (i < 4 || i >= 7)
			CHECK_EQ(area[i * PAGE], 'a');
	CHECK(madvise(area + 4 * PAGE, PAGE, MADV_GUARD_REMOVE) == 0);
	CHECK_EQ(faults(area + 4 * PAGE), 0);
	return verdict();
}
