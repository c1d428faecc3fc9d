/* hugetlb pages, private anonymous. */
#include "selfcheck.h"
#include <sys/mman.h>

#define SIZE (2L << 20)

int main(void)
{
	char *at = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);

	if (at == MAP_FAILED)
		unsupported("no free huge page (/proc/sys/vm/nr_hugepages)");
	for (long i = 0; i < SIZE; i += 4096)
		at[i + 11] = i / 4096 % 251;
	ready();
	for (long i = 0; i < SIZE; i += 4096)
		CHECK_EQ((unsigned char)at[i + 11], i / 4096 % 251);
	return verdict();
}
