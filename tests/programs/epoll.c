/* epoll: interests with their flags and data, ready ones, a one-shot that is spent, a thread that waits. */
#include "selfcheck.h"
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

static int waited;

static void add(int epoll, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = { events, { .u64 = data } };

	MUST(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
}

static void *waiter(void *unused)
{
	struct epoll_event event = { 0 };
	int count;

	(void)unused;
	while ((count = epoll_wait(waited, &event, 1, -1)) == -1 && errno == EINTR)
		;
	CHECK_EQ(count, 1);
	CHECK_EQ(event.data.u64, 0xfedcba9876543210ULL);
	return NULL;
}

int main(void)
{
	struct epoll_event event = { 0 }, events[8];
	int epoll, level, edge, once, moved, ends[2], wake;
	pthread_t thread;

	MUST((epoll = epoll_create1(EPOLL_CLOEXEC)) >= 0 && (waited = epoll_create1(0)) >= 0);
	MUST((level = eventfd(1, EFD_NONBLOCK)) >= 0 && (edge = eventfd(0, EFD_NONBLOCK)) >= 0);
	MUST((once = eventfd(1, EFD_NONBLOCK)) >= 0 && (wake = eventfd(0, EFD_NONBLOCK)) >= 0 && pipe(ends) == 0);
	add(epoll, level, EPOLLIN, 0x1111111122222222);
	add(epoll, edge, EPOLLIN | EPOLLET, 2);
	add(epoll, once, EPOLLIN | EPOLLONESHOT, 3);
	add(epoll, ends[0], EPOLLIN | EPOLLRDHUP, 4);
	add(epoll, ends[1], 0, 5);
	MUST((moved = dup(level)) >= 0);
	add(epoll, moved, EPOLLPRI, 6);
	add(waited, wake, EPOLLIN, 0xfedcba9876543210ULL);
	MUST(epoll_wait(epoll, events, 8, 0) == 2); /* level, and once for the last time */
	MUST(pthread_create(&thread, NULL, waiter, NULL) == 0);
	sleep_ms(20);

	ready();
	CHECK_EQ(fcntl(epoll, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 1);
	CHECK_EQ(event.data.u64, 0x1111111122222222);
	CHECK_EQ(event.events, EPOLLIN);
	CHECK(eventfd_write(edge, 1) == 0 && write(ends[1], "x", 1) == 1);
	CHECK_EQ(epoll_wait(epoll, events, 8, 0), 3);
	CHECK_EQ(epoll_wait(epoll, events, 8, 0), 2); /* the edge was reported */
	event = (struct epoll_event){ EPOLLIN, { .u64 = 33 } };
	CHECK_EQ(epoll_ctl(epoll, EPOLL_CTL_MOD, once, &event), 0); /* it is still there, spent */
	CHECK_EQ(epoll_wait(epoll, events, 8, 0), 3);
	CHECK_EQ(epoll_ctl(epoll, EPOLL_CTL_DEL, ends[1], NULL), 0);
	CHECK_EQ(epoll_ctl(epoll, EPOLL_CTL_DEL, moved, NULL), 0);
	CHECK_EQ(eventfd_write(wake, 1), 0);
	CHECK_EQ(pthread_join(thread, NULL), 0);
	return verdict();
}
