/* mseal(2): what was sealed cannot be changed afterwards either, and has its content. */
#include "selfcheck.h"
#include <sys/mman.h>

#define PAGE 4096
#define MSEAL 462

int main(void)
{
	char *at = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	MUST(at != MAP_FAILED);
	memset(at, 's', 2 * PAGE);
	MUST(mprotect(at, 2 * PAGE, PROT_READ) == 0);
	if (syscall(MSEAL, at, 2 * PAGE, 0) != 0)
		unsupported("mseal");
	ready();
	CHECK(at[0] == 's' && at[2 * PAGE - 1] == 's');
	CHECK(mprotect(at, PAGE, PROT_READ | PROT_WRITE) == -1 && errno == EPERM);
	CHECK(munmap(at, PAGE) == -1 && errno == EPERM);
	CHECK(munmap(at + 2 * PAGE, 2 * PAGE) == 0);
	return verdict();
}
