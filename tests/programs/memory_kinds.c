/* Private and shared, anonymous and file-backed memory, with content, protection and holes. */
#include "selfcheck.h"
#include <sys/mman.h>

#define PAGE 4096L
#define PAGES 64

static char *map(void *at, long pages, int protection, int flags, int fd, long offset)
{
	char *address = mmap(at, pages * PAGE, protection, flags, fd, offset * PAGE);

	MUST(address != MAP_FAILED);
	return address;
}

static void fill(char *at, long pages, unsigned seed)
{
	for (long i = 0; i < pages * PAGE / 8; i++)
		((uint64_t *)at)[i] = (i + 1) * 0x9e3779b97f4a7c15ULL * seed;
}

static int holds(const char *at, long pages, unsigned seed)
{
	for (long i = 0; i < pages * PAGE / 8; i++)
		if (((const uint64_t *)at)[i] != (i + 1) * 0x9e3779b97f4a7c15ULL * seed)
			return 0;
	return 1;
}

static int is_zero(const char *at, long pages)
{
	for (long i = 0; i < pages * PAGE; i++)
		if (at[i] != 0)
			return 0;
	return 1;
}

static int new_file(const char *name, long pages, unsigned seed)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
	static char page[PAGES * PAGE];

	MUST(fd >= 0);
	fill(page, pages, seed);
	MUST(write(fd, page, pages * PAGE) == pages * PAGE);
	return fd;
}

int main(void)
{
	const int anonymous = MAP_PRIVATE | MAP_ANONYMOUS, rw = PROT_READ | PROT_WRITE;
	int cow_file = new_file("cow", 16, 3), shared_file = new_file("shared", 16, 4), ro_file = new_file("constant", 8, 5);

	char *plain = map(NULL, PAGES, rw, anonymous, -1, 0);
	fill(plain, PAGES, 1);
	char *sparse = map(NULL, 4096, rw, anonymous | MAP_NORESERVE, -1, 0);
	fill(sparse + 100 * PAGE, 1, 2);
	fill(sparse + 4000 * PAGE, 2, 2);
	char *locked_away = map(NULL, 8, rw, anonymous, -1, 0);
	fill(locked_away, 8, 6);
	MUST(mprotect(locked_away, 8 * PAGE, PROT_NONE) == 0);
	char *constant = map(NULL, 8, rw, anonymous, -1, 0);
	fill(constant, 8, 7);
	MUST(mprotect(constant, 8 * PAGE, PROT_READ) == 0);
	char *cow = map(NULL, 16, rw, MAP_PRIVATE, cow_file, 0);
	fill(cow + 3 * PAGE, 2, 8);
	MUST(mprotect(cow + 10 * PAGE, 6 * PAGE, PROT_READ) == 0);
	char *cow_was_written = map(NULL, 8, rw, MAP_PRIVATE, ro_file, 0);
	fill(cow_was_written + PAGE, 1, 9);
	MUST(mprotect(cow_was_written, 8 * PAGE, PROT_READ) == 0);
	char *shared = map(NULL, 8, rw, MAP_SHARED, shared_file, 4);
	fill(shared + 2 * PAGE, 1, 10);
	char *beyond = map(NULL, 4, rw, MAP_PRIVATE, ro_file, 6); /* two pages lie after the end of the file */
	int closed = new_file("closed", 4, 11);
	char *of_closed = map(NULL, 4, PROT_READ, MAP_PRIVATE, closed, 0);
	close(closed);
	/* Far from all others: it must not grow to within the stack guard gap of a neighbour. */
	char *growing = map((void *)0x200000000000, 4, rw, anonymous | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
	fill(growing, 4, 12);
	char *reserved = map(NULL, 1L << 20, PROT_NONE, anonymous | MAP_NORESERVE, -1, 0); /* 4 GiB of nothing */
	char *holey = map(NULL, 32, rw, anonymous, -1, 0);
	fill(holey, 32, 13);
	MUST(munmap(holey + 8 * PAGE, 8 * PAGE) == 0);
	MUST(mprotect(holey + 20 * PAGE, 4 * PAGE, PROT_READ | PROT_EXEC) == 0);
	char *low = map((void *)0x10000, 2, rw, anonymous | MAP_FIXED_NOREPLACE, -1, 0);
	fill(low, 2, 14);
	char *high = map((void *)0x7ffff0000000, 2, rw, anonymous | MAP_FIXED_NOREPLACE, -1, 0);
	fill(high, 2, 15);
	char *heap = sbrk(0);
	MUST(sbrk(40 * PAGE) == heap);
	heap = (char *)(((uintptr_t)heap + PAGE - 1) & -PAGE);
	fill(heap, 16, 16);
	void *end = sbrk(0);

	ready();
	CHECK(holds(plain, PAGES, 1));
	CHECK(is_zero(sparse, 100) && holds(sparse + 100 * PAGE, 1, 2) && is_zero(sparse + 101 * PAGE, 3899));
	CHECK(holds(sparse + 4000 * PAGE, 2, 2));
	CHECK(mprotect(locked_away, 8 * PAGE, PROT_READ) == 0 && holds(locked_away, 8, 6));
	CHECK(holds(constant, 8, 7));
	static char expected[16 * PAGE];
	fill(expected, 16, 3);
	fill(expected + 3 * PAGE, 2, 8);
	CHECK(memcmp(cow, expected, sizeof(expected)) == 0);
	/* What nobody wrote is still the file's: a change of the file shows. */
	CHECK(pwrite(cow_file, "new", 3, 12 * PAGE) == 3 && memcmp(cow + 12 * PAGE, "new", 3) == 0);
	CHECK(pwrite(cow_file, "new", 3, 4 * PAGE) == 3 && memcmp(cow + 4 * PAGE, "new", 3) != 0);
	fill(expected, 8, 5);
	fill(expected + PAGE, 1, 9);
	CHECK(memcmp(cow_was_written, expected, 8 * PAGE) == 0);
	fill(expected, 16, 4);
	fill(expected + 6 * PAGE, 1, 10);
	CHECK(memcmp(shared, expected + 4 * PAGE, 8 * PAGE) == 0);
	shared[5 * PAGE] = 'X';
	char byte = 0;
	CHECK(pread(shared_file, &byte, 1, 9 * PAGE) == 1 && byte == 'X');
	fill(expected, 8, 5);
	CHECK(memcmp(beyond, expected + 6 * PAGE, 2 * PAGE) == 0);
	CHECK(holds(of_closed, 4, 11));
	CHECK(holds(growing, 4, 12));
	growing[-PAGE / 2] = 1; /* it still grows */
	CHECK(mprotect(reserved + 1000 * PAGE, PAGE, rw) == 0 && is_zero(reserved + 1000 * PAGE, 1));
	char *filled = map(NULL, 32, rw, anonymous, -1, 0);
	fill(filled, 32, 13);
	CHECK(memcmp(holey, filled, 8 * PAGE) == 0 && memcmp(holey + 16 * PAGE, filled + 16 * PAGE, 16 * PAGE) == 0);
	CHECK_EQ(msync(holey + 8 * PAGE, PAGE, MS_ASYNC), -1);
	CHECK(holds(low, 2, 14));
	CHECK(holds(high, 2, 15));
	CHECK(sbrk(0) == end && holds(heap, 16, 16));
	CHECK(sbrk(PAGE) == end);
	return verdict();
}
