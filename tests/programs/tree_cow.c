/*
 * MEBIBYTES of random private memory, written before the forks.  The child has changed one page in a hundred since, and
 * given back another; its own child has changed others, some of them for the second time.  With BEYOND_CRIU the root
 * also looks at the page frames: what nobody changed is still there once.
 */
#include "tree.h"
#include <sys/mman.h>

#define PAGE 4096

enum { OF_ROOT = 1, OF_CHILD, OF_GRANDCHILD, NOTHING };

static char *memory;
static long pages = 16 * 256;

static void write_page(long page, int writer)
{
	uint64_t random = (page + 1) * 88172645463325252ULL + writer;

	for (int i = 0; i < PAGE / 8; i++) {
		random ^= random << 13, random ^= random >> 7, random ^= random << 17;
		((uint64_t *)(memory + page * PAGE))[i] = random;
	}
}

static int has_page(long page, int writer)
{
	uint64_t random = (page + 1) * 88172645463325252ULL + writer, *at = (uint64_t *)(memory + page * PAGE);

	for (int i = 0; i < PAGE / 8; i++) {
		random ^= random << 13, random ^= random >> 7, random ^= random << 17;
		if (at[i] != (writer == NOTHING ? 0 : random))
			return 0;
	}
	return 1;
}

/* Whose writing a page has in `process`. */
static int writer_of(long page, int process)
{
	if (process == OF_GRANDCHILD && (page % 100 == 42 || page % 1000 == 7))
		return OF_GRANDCHILD;
	if (process != OF_ROOT && page % 100 == 7)
		return OF_CHILD;
	if (process != OF_ROOT && page % 100 == 77)
		return NOTHING;
	return OF_ROOT;
}

static void change(int process, int parent)
{
	for (long page = 0; page < pages; page++)
		if (writer_of(page, process) == NOTHING)
			MUST(madvise(memory + page * PAGE, PAGE, MADV_DONTNEED) == 0);
		else if (writer_of(page, process) != writer_of(page, parent))
			write_page(page, process);
}

static void check(int process)
{
	long wrong = 0;

	for (long page = 0; page < pages; page++)
		wrong += !has_page(page, writer_of(page, process));
	CHECK_EQ(wrong, 0);
}

static void in_grandchild(void *unused)
{
	(void)unused;
	change(OF_GRANDCHILD, OF_CHILD);
	is_set_up();
	until("check");
	check(OF_GRANDCHILD);
	memset(memory, 'g', PAGE * 8);
	did("check");
	until("end");
}

static void in_child(void *unused)
{
	(void)unused;
	change(OF_CHILD, OF_ROOT);
	pid_t below = child(in_grandchild, NULL);
	int fd = open("grandchild.pid", O_WRONLY | O_CREAT, 0644);
	MUST(fd >= 0 && write(fd, &below, sizeof(below)) == sizeof(below) && close(fd) == 0);
	is_set_up();
	until("end");
	check(OF_CHILD);
	CHECK_ENDED_WELL(below);
}

/* The frames of all pages of a process, 0 for one that is not there. */
static uint64_t *frames(pid_t pid)
{
	char name[64];
	uint64_t *entries = malloc(pages * 8);

	snprintf(name, sizeof(name), "/proc/%d/pagemap", pid);
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	CHECK(entries != NULL && pread(fd, entries, pages * 8, (uintptr_t)memory / PAGE * 8) == pages * 8);
	close(fd);
	for (long page = 0; page < pages; page++)
		entries[page] = entries[page] >> 63 ? entries[page] & ((1ULL << 55) - 1) : 0;
	return entries;
}

/* At least nine in ten of the pages that are alike in parent and child are there once, and none of the others. */
static void check_shared(pid_t parent, int of_parent, pid_t child, int of_child)
{
	uint64_t *left = frames(parent), *right = frames(child);
	long alike = 0, once = 0, wrong = 0;

	for (long page = 0; page < pages; page++) {
		int same_frame = left[page] != 0 && left[page] == right[page];

		if (writer_of(page, of_parent) != writer_of(page, of_child))
			wrong += same_frame;
		else if (writer_of(page, of_parent) != NOTHING)
			alike++, once += same_frame;
	}
	CHECK_EQ(wrong, 0);
	if (once < alike / 10 * 9) {
		selfcheck_failures++;
		say("FAIL: process %d shares %ld pages with its parent, and could share %ld", child, once, alike);
	}
	free(left);
	free(right);
}

int main(void)
{
	pid_t below, grandchild;

	if (getenv("MEBIBYTES") != NULL)
		pages = atol(getenv("MEBIBYTES")) * 256;
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(memory != MAP_FAILED && madvise(memory, pages * PAGE, MADV_NOHUGEPAGE) == 0);
	for (long page = 0; page < pages; page++)
		write_page(page, OF_ROOT);
	tree_begins();
	below = child(in_child, NULL);
	wait_set_up(2);
	int fd = open("grandchild.pid", O_RDONLY);
	MUST(fd >= 0 && read(fd, &grandchild, sizeof(grandchild)) == sizeof(grandchild) && close(fd) == 0);
	if (beyond_criu()) {
		uint64_t *entries = frames(getpid());

		if (entries[0] == 0)
			unsupported("page frame numbers");
		free(entries);
		check_shared(getpid(), OF_ROOT, below, OF_CHILD);
		check_shared(below, OF_CHILD, grandchild, OF_GRANDCHILD);
		MUST(selfcheck_failures == 0);
	}
	ready();
	if (beyond_criu()) {
		check_shared(getpid(), OF_ROOT, below, OF_CHILD);
		check_shared(below, OF_CHILD, grandchild, OF_GRANDCHILD);
	}
	check(OF_ROOT);
	memset(memory + 8 * PAGE, 'r', PAGE * 8); /* of which the others see nothing */
	let("check");
	CHECK(has_page(0, OF_ROOT));
	announce("end");
	CHECK_ENDED_WELL(below);
	check_no_child();
	return verdict();
}
