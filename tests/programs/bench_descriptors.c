/*
 * What the benchmark dumps of open files: DESCRIPTORS of all sorts in one process, each with something in it that is
 * looked at when it is told to end; gap.h measures.
 */
#include "gap.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

enum { AT_ONCE = 6 };

static int file(long nth)
{
	char name[32];

	snprintf(name, sizeof(name), "file-%ld", nth);
	int fd = open(name, O_RDWR | O_CREAT, 0644);
	MUST(fd >= 0 && write(fd, &nth, sizeof(nth)) == sizeof(nth));
	return fd;
}

static int event(long nth)
{
	return eventfd(nth, EFD_NONBLOCK);
}

static int memory(long nth)
{
	int fd = memfd_create("bench", 0);

	MUST(fd >= 0 && write(fd, &nth, sizeof(nth)) == sizeof(nth));
	return fd;
}

static void must_hold(int fd, long nth)
{
	long found = 0;

	CHECK_EQ(read(fd, &found, sizeof(found)), sizeof(found));
	CHECK_EQ(found, nth);
}

/* Of AT_ONCE descriptors: a file, both ends of a pipe, an event counter, memory, and what watches the counter. */
static void make(int *fds, long nth)
{
	struct epoll_event watch = { EPOLLIN, { .u64 = nth } };

	fds[0] = file(nth);
	MUST(pipe2(fds + 1, O_CLOEXEC) == 0 && write(fds[2], &nth, sizeof(nth)) == sizeof(nth));
	fds[3] = event(nth);
	fds[4] = memory(nth);
	MUST((fds[5] = epoll_create1(EPOLL_CLOEXEC)) >= 0 && epoll_ctl(fds[5], EPOLL_CTL_ADD, fds[3], &watch) == 0);
}

static void look_at(const int *fds, long nth)
{
	struct epoll_event watch;

	CHECK_EQ(lseek(fds[0], 0, SEEK_CUR), sizeof(nth));
	CHECK_EQ(lseek(fds[4], 0, SEEK_SET), 0);
	CHECK_EQ(epoll_wait(fds[5], &watch, 1, 0), nth != 0);
	if (nth != 0)
		CHECK_EQ(watch.data.u64, nth);
	must_hold(fds[1], nth);
	must_hold(fds[4], nth);
	if (nth != 0)
		must_hold(fds[3], nth);
}

int main(void)
{
	long groups = number("DESCRIPTORS") / AT_ONCE;
	_Atomic int64_t *beat = map_beat();
	struct rlimit limit;

	MUST(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = limit.rlim_max;
	MUST(setrlimit(RLIMIT_NOFILE, &limit) == 0 && (long)limit.rlim_max > groups * AT_ONCE + 16);
	int(*fds)[AT_ONCE] = calloc(groups, sizeof(*fds));
	MUST(fds != NULL);
	for (long i = 0; i < groups; i++)
		make(fds[i], i);
	measure_gaps(beat);
	for (long i = 0; i < groups; i++)
		look_at(fds[i], i);
	return verdict();
}
