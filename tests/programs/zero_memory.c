/* Memory that was read but never written, or holds zeros only, needs no place: neither in the images nor after. */
#include "selfcheck.h"
#include <sys/mman.h>

#define SIZE (64L << 20)

int main(void)
{
	char *read_only = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *untouched = mmap(NULL, 1L << 32, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	volatile char sum = 0;

	MUST(read_only != MAP_FAILED && untouched != MAP_FAILED);
	MUST(madvise(read_only, SIZE, MADV_NOHUGEPAGE) == 0 && madvise(untouched, 1L << 32, MADV_NOHUGEPAGE) == 0);
	for (long i = 0; i < SIZE; i += 4096)
		sum += read_only[i];
	ready();
	const char *kib = proc_field("/proc/self/status", "RssAnon:");
	CHECK(kib != NULL && atol(kib) < 8192);
	for (long i = 0; i < SIZE; i += 4096)
		sum += read_only[i];
	CHECK_EQ(sum, 0);
	CHECK_EQ(untouched[1L << 31], 0);
	return verdict();
}
