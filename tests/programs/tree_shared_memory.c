/*
 * Memory that is shared across fork, which everybody has another part of at another place: anonymous, /dev/zero, memfds
 * with and without a descriptor, and with SYSV a System V segment.  The root has a child, and that one a child.
 * Content, holes and protections are there again, and what one writes the others read.
 */
#include "tree.h"
#include <sys/mman.h>
#include <sys/shm.h>

#define PAGE 4096L
#define RW (PROT_READ | PROT_WRITE)

static char *whole;  /* 64 pages; the child has no [16, 32); [0, 8) is constant and [48, 64) elsewhere in the grandchild */
static char *window; /* [4, 12) of the same again, in the root only */
static char *moved;  /* [48, 64) in the grandchild */
static char *zero;   /* 4 pages of /dev/zero; not in the child */
static char *kept;   /* a memfd of 10 pages and a bit; whole in the root, whose descriptor lives, */
static char *part;   /* [2, 6) in the others, constant */
static char *copied; /* a private mapping of a memfd without any descriptor, changed by everybody */
static char *future; /* mapped for writing before its memfd was sealed against that */
static char *segment, *segment_below;
static int kept_fd, unmapped_fd, future_fd, segment_id = -1;

static uint64_t word(long page, long index, unsigned seed)
{
	return (page * 512 + index + 1) * 0x9e3779b97f4a7c15ULL * seed;
}

static void fill(char *at, long first, long last, unsigned seed)
{
	for (long page = first; page < last; page++)
		for (long i = 0; i < 512; i++)
			((uint64_t *)(at + page * PAGE))[i] = word(page, i, seed);
}

/* Whether `at`, which is page `base` of the object, has pages [first, last) of it. */
static int holds(const char *at, long base, long first, long last, unsigned seed)
{
	for (long page = first; page < last; page++)
		for (long i = 0; i < 512; i++)
			if (((const uint64_t *)(at + (page - base) * PAGE))[i] != word(page, i, seed))
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

static char *map(void *at, long pages, int protection, int flags, int fd, long offset)
{
	char *address = mmap(at, pages * PAGE, protection, flags, fd, offset * PAGE);

	MUST(address != MAP_FAILED);
	return address;
}

/* Whether the kernel may write there for us. */
static int is_writable(char *at)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC), answer;
	char before = *at;

	answer = read(fd, at, 1) == 1;
	close(fd);
	if (answer)
		*at = before;
	return answer;
}

static int is_mapped(char *at)
{
	return msync(at, PAGE, MS_ASYNC) == 0;
}

/* Pages [first, last) of the object behind the mapping `at` of `pages` pages have never been touched. */
static int has_hole(char *at, long pages, long first, long last)
{
	char name[96];

	snprintf(name, sizeof(name), "/proc/self/map_files/%lx-%lx", (long)at, (long)at + pages * PAGE);
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	int answer = lseek(fd, first * PAGE, SEEK_HOLE) == first * PAGE && lseek(fd, first * PAGE, SEEK_DATA) == last * PAGE &&
		     (first == 0 || lseek(fd, (first - 1) * PAGE, SEEK_HOLE) == first * PAGE);
	close(fd);
	return answer;
}

static int memfd(const char *name, long size)
{
	int fd = memfd_create(name, MFD_ALLOW_SEALING | MFD_CLOEXEC);

	MUST(fd >= 0 && ftruncate(fd, size) == 0);
	return fd;
}

static void check_private(unsigned own, long own_page, long others_page)
{
	CHECK(holds(copied, 0, own_page, own_page + 1, own));
	CHECK(holds(copied, 0, others_page, others_page + 1, 4));
	CHECK(holds(copied, 0, 0, 1, 4) && holds(copied, 0, 1, 2, 10) && holds(copied, 0, 6, 8, 4));
}

static void in_grandchild(void *unused)
{
	(void)unused;
	MUST(mprotect(whole, 8 * PAGE, PROT_READ) == 0);
	moved = map(NULL, 16, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(mremap(whole + 48 * PAGE, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved) == moved);
	fill(copied, 3, 4, 12);
	is_set_up();

	until("grandchild");
	CHECK(holds(whole, 0, 1, 8, 1) && holds(whole, 0, 12, 33, 1) && holds(whole, 0, 34, 40, 1) && holds(whole, 0, 44, 48, 1));
	CHECK(memcmp(whole + 33 * PAGE, "child", 5) == 0);
	CHECK(holds(moved, 48, 48, 64, 1));
	CHECK(memcmp(whole, "root", 4) == 0 && !is_writable(whole) && is_writable(whole + 8 * PAGE));
	CHECK(!is_mapped(whole + 48 * PAGE) && is_mapped(whole + 16 * PAGE));
	CHECK(memcmp(zero, "root", 4) == 0 && holds(zero, 0, 1, 4, 2));
	CHECK(holds(part, 2, 2, 4, 3) && memcmp(part + 2 * PAGE, "root", 4) == 0 && !is_writable(part));
	check_private(12, 3, 2);
	CHECK(memcmp(future, "root", 4) == 0 && memcmp(future + 2 * PAGE, "child", 5) == 0);
	CHECK(holds(future, 0, 1, 2, 6) && holds(future, 0, 3, 4, 6));
	if (segment_id >= 0) {
		CHECK(memcmp(segment, "root", 4) == 0 && holds(segment, 0, 1, 4, 7));
		memcpy(segment + 3 * PAGE, "grandchild", 10);
	}
	memcpy(moved + 15 * PAGE, "grandchild", 10);
	memcpy(whole + 9 * PAGE, "grandchild", 10);
	memcpy(zero + 3 * PAGE, "grandchild", 10);
	memcpy(future + 3 * PAGE, "grandchild", 10);
	did("grandchild");
	until("end");
}

static void in_child(void *unused)
{
	(void)unused;
	part = map(NULL, 4, PROT_READ, MAP_SHARED, kept_fd, 2);
	if (segment_id >= 0)
		MUST((segment_below = shmat(segment_id, NULL, SHM_RDONLY)) != (void *)-1);
	MUST(munmap(window, 8 * PAGE) == 0 && munmap(kept, 10 * PAGE) == 0);
	MUST(close(kept_fd) == 0 && close(future_fd) == 0);
	pid_t below = child(in_grandchild, NULL);
	MUST(munmap(whole + 16 * PAGE, 16 * PAGE) == 0 && munmap(zero, 4 * PAGE) == 0);
	if (segment_id >= 0)
		MUST(shmdt(segment) == 0);
	fill(copied, 2, 3, 11);
	is_set_up();

	until("child");
	CHECK(holds(whole, 0, 1, 8, 1) && holds(whole, 0, 12, 16, 1) && holds(whole, 0, 32, 40, 1) && holds(whole, 0, 44, 64, 1));
	CHECK(memcmp(whole, "root", 4) == 0 && is_writable(whole));
	CHECK(!is_mapped(whole + 16 * PAGE) && !is_mapped(whole + 31 * PAGE) && is_mapped(whole + 32 * PAGE));
	CHECK(!is_mapped(zero) && !is_mapped(kept) && !is_mapped(window));
	CHECK(holds(part, 2, 2, 4, 3) && memcmp(part + 2 * PAGE, "root", 4) == 0 && !is_writable(part));
	check_private(11, 2, 3);
	CHECK(holds(future, 0, 1, 4, 6));
	/* The descriptor and its position are one with the root's, and the seals hold. */
	char text[8] = "";
	CHECK(read(unmapped_fd, text, 3) == 3 && memcmp(text, "345", 3) == 0);
	CHECK_EQ(pwrite(unmapped_fd, "x", 1, 0), -1);
	if (segment_id >= 0) {
		CHECK(!is_mapped(segment) && memcmp(segment_below, "root", 4) == 0 && holds(segment_below, 0, 1, 4, 7));
		CHECK(!is_writable(segment_below));
	}
	memcpy(whole + 33 * PAGE, "child", 5);
	memcpy(future + 2 * PAGE, "child", 5);
	did("child");
	CHECK_ENDED_WELL(below);
}

int main(void)
{
	int fd;
	struct shmid_ds facts;
	pid_t below;

	tree_begins();
	whole = map(NULL, 64, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	fill(whole, 0, 8, 1), fill(whole, 12, 40, 1), fill(whole, 44, 64, 1);
	MUST((window = mremap(whole + 4 * PAGE, 0, 8 * PAGE, MREMAP_MAYMOVE)) != MAP_FAILED);
	MUST((fd = open("/dev/zero", O_RDWR)) >= 0);
	zero = map(NULL, 4, RW, MAP_SHARED, fd, 0);
	fill(zero, 0, 4, 2);
	MUST(close(fd) == 0);
	kept_fd = memfd("kept", 10 * PAGE + 100);
	kept = map(NULL, 10, RW, MAP_SHARED, kept_fd, 0);
	fill(kept, 0, 7, 3), fill(kept, 8, 10, 3);
	MUST(fcntl(kept_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0 && pwrite(kept_fd, "end", 3, 10 * PAGE + 97) == 3);
	fd = memfd("copied", 8 * PAGE);
	copied = map(NULL, 8, RW, MAP_SHARED, fd, 0);
	fill(copied, 0, 8, 4);
	MUST(munmap(copied, 8 * PAGE) == 0);
	copied = map(NULL, 8, RW, MAP_PRIVATE, fd, 0);
	MUST(close(fd) == 0);
	fill(copied, 1, 2, 10);
	unmapped_fd = memfd("unmapped", 5000);
	MUST(write(unmapped_fd, "0123456789", 10) == 10 && lseek(unmapped_fd, 3, SEEK_SET) == 3);
	MUST(fcntl(unmapped_fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0);
	future_fd = memfd("future", 4 * PAGE);
	future = map(NULL, 4, RW, MAP_SHARED, future_fd, 0);
	fill(future, 0, 4, 6);
	MUST(fcntl(future_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == 0);
	if (getenv("SYSV") != NULL) {
		FILE *list = fopen("sysv", "w");

		segment_id = shmget(IPC_PRIVATE, 4 * PAGE, IPC_CREAT | 0600);
		if (segment_id < 0)
			unsupported("shmget");
		MUST(list != NULL && fprintf(list, "shm %d\n", segment_id) > 0 && fclose(list) == 0);
		MUST((segment = shmat(segment_id, NULL, 0)) != (void *)-1);
		fill(segment, 0, 4, 7);
	}
	below = child(in_child, NULL);
	wait_set_up(2);
	MUST(has_hole(whole, 64, 8, 12) && has_hole(whole, 64, 40, 44) && has_hole(kept, 10, 7, 8));

	ready();
	CHECK(has_hole(whole, 64, 8, 12));
	CHECK(has_hole(whole, 64, 40, 44));
	CHECK(has_hole(kept, 10, 7, 8));
	CHECK(holds(whole, 0, 0, 8, 1) && holds(whole, 0, 12, 40, 1) && holds(whole, 0, 44, 64, 1));
	CHECK(is_zero(whole + 8 * PAGE, 4) && is_zero(whole + 40 * PAGE, 4));
	CHECK(holds(window, 4, 4, 8, 1) && is_writable(window));
	CHECK(holds(zero, 0, 0, 4, 2));
	CHECK(holds(kept, 0, 0, 7, 3) && is_zero(kept + 7 * PAGE, 1) && holds(kept, 0, 8, 10, 3));
	char text[8] = "";
	CHECK(pread(kept_fd, text, 8, 10 * PAGE + 97) == 3 && memcmp(text, "end", 3) == 0);
	CHECK_EQ(lseek(kept_fd, 0, SEEK_END), 10 * PAGE + 100);
	CHECK_EQ(fcntl(kept_fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
	CHECK_EQ(ftruncate(kept_fd, PAGE), -1);
	CHECK(holds(copied, 0, 0, 1, 4) && holds(copied, 0, 1, 2, 10) && holds(copied, 0, 2, 8, 4));
	CHECK_EQ(lseek(unmapped_fd, 0, SEEK_CUR), 3);
	CHECK_EQ(fcntl(unmapped_fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_SEAL);
	CHECK_EQ(fcntl(future_fd, F_GET_SEALS), F_SEAL_FUTURE_WRITE);
	CHECK_EQ(pwrite(future_fd, "x", 1, 0), -1);
	CHECK(holds(future, 0, 0, 4, 6));
	if (segment_id >= 0) {
		CHECK(holds(segment, 0, 0, 4, 7));
		CHECK(shmctl(segment_id, IPC_STAT, &facts) == 0);
		CHECK_EQ(facts.shm_nattch, 4); /* here, twice in the grandchild, once in the child */
		memcpy(segment, "root", 4);
	}

	memcpy(whole, "root", 4);
	memcpy(zero, "root", 4);
	memcpy(kept + 4 * PAGE, "root", 4);
	memcpy(future, "root", 4);
	let("child");
	CHECK(memcmp(whole + 33 * PAGE, "child", 5) == 0 && memcmp(future + 2 * PAGE, "child", 5) == 0);
	CHECK_EQ(lseek(unmapped_fd, 0, SEEK_CUR), 6);
	let("grandchild");
	CHECK(memcmp(whole + 63 * PAGE, "grandchild", 10) == 0 && memcmp(whole + 9 * PAGE, "grandchild", 10) == 0);
	CHECK(memcmp(window + 5 * PAGE, "grandchild", 10) == 0 && memcmp(zero + 3 * PAGE, "grandchild", 10) == 0);
	CHECK(memcmp(future + 3 * PAGE, "grandchild", 10) == 0);
	window[0] = 'w';
	CHECK_EQ(whole[4 * PAGE], 'w');
	if (segment_id >= 0) {
		CHECK(memcmp(segment + 3 * PAGE, "grandchild", 10) == 0);
		CHECK(shmctl(segment_id, IPC_RMID, NULL) == 0);
	}
	announce("end");
	CHECK_ENDED_WELL(below);
	check_no_child();
	return verdict();
}
