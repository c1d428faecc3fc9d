/*
 * An epoll instance of which the root has kept the instance, and two children the watched files: the root's numbers for
 * them are closed, or mean other files by now.  Of another instance it is the children who have it, and not the root.
 */
#include "tree.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

enum { COUNTER = 30, PIPE, OTHER, LATE };

static int instance = 50, of_children = 51;

static void watch(int at, int fd, uint64_t data)
{
	struct epoll_event event = { EPOLLIN, { .u64 = data } };

	MUST(epoll_ctl(at, EPOLL_CTL_ADD, fd, &event) == 0);
}

static void moved(int from, int to)
{
	MUST(dup2(from, to) == to && close(from) == 0);
}

/* Data of what is ready, as bits. */
static int ready_bits(int at)
{
	struct epoll_event events[8];
	int count = epoll_wait(at, events, 8, 0), bits = 0;

	CHECK(count >= 0);
	for (int i = 0; i < count; i++)
		bits |= 1 << events[i].data.u64;
	return bits;
}

static void in_first(void *unused)
{
	(void)unused;
	MUST(close(instance) == 0 && close(PIPE) == 0);
	is_set_up();
	until("first");
	CHECK_EQ(eventfd_write(COUNTER, 1), 0);
	CHECK_EQ(fcntl(PIPE, F_GETFD), -1);
	CHECK_EQ(ready_bits(of_children), 1 << 3);
	did("first");
	until("first again");
	CHECK_EQ(ready_bits(of_children), 1 << 3 | 1 << 4);
	did("first again");
	until("end");
}

static void in_second(void *pipe_end)
{
	MUST(close(instance) == 0 && close(COUNTER) == 0);
	moved(eventfd(0, 0), LATE);
	watch(of_children, LATE, 4); /* which neither the first child nor the root ever had */
	is_set_up();
	until("second");
	CHECK_EQ(ready_bits(of_children), 1 << 3);
	CHECK_EQ(write(*(int *)pipe_end, "x", 1), 1);
	CHECK_EQ(eventfd_write(LATE, 1), 0);
	CHECK_EQ(ready_bits(of_children), 1 << 3 | 1 << 4);
	did("second");
	until("end"); /* what it has open is watched */
}

int main(void)
{
	int ends[2], pipe_end = 60;
	pid_t first, second;

	tree_begins();
	moved(epoll_create1(0), instance);
	moved(epoll_create1(0), of_children);
	moved(eventfd(0, EFD_NONBLOCK), COUNTER);
	MUST(pipe(ends) == 0);
	moved(ends[1], pipe_end);
	moved(ends[0], PIPE);
	moved(eventfd(1, 0), OTHER);
	watch(instance, COUNTER, 1);
	watch(instance, PIPE, 2);
	watch(of_children, OTHER, 3);
	first = child(in_first, NULL);
	second = child(in_second, &pipe_end);
	MUST(close(of_children) == 0 && close(COUNTER) == 0 && close(PIPE) == 0 && close(pipe_end) == 0);
	moved(eventfd(1, 0), COUNTER);
	watch(instance, COUNTER, 5);
	wait_set_up(2);

	ready();
	CHECK_EQ(ready_bits(instance), 1 << 5);
	let("first");
	CHECK_EQ(ready_bits(instance), 1 << 1 | 1 << 5);
	let("second");
	CHECK_EQ(ready_bits(instance), 1 << 1 | 1 << 2 | 1 << 5);
	let("first again");
	CHECK_EQ(ready_bits(instance), 1 << 1 | 1 << 2 | 1 << 5);
	announce("end");
	CHECK_EQ(fcntl(PIPE, F_GETFD), -1);
	CHECK_ENDED_WELL(first);
	CHECK_ENDED_WELL(second);
	check_no_child();
	return verdict();
}
