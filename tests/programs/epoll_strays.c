/*
 * epoll instances that watch files under numbers which do not lead to these files any more: closed, or given to other
 * files, which are watched too, or to the instance itself.  Such a registration is another one than that of the file
 * under a number that it has now, and with the old number again it can be removed.
 */
#include "selfcheck.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define CLOSED 20
#define GIVEN 21
#define OWN 22
#define INNER 23
#define FAR 700
#define KEPT 100 /* more than any number: where the files are now */

static int plain = 40, inner = 41;

static int add(int instance, int fd, uint32_t events, uint64_t data)
{
	struct epoll_event event = { events, { .u64 = data } };

	return epoll_ctl(instance, EPOLL_CTL_ADD, fd, &event);
}

static void moved(int from, int to)
{
	MUST(dup2(from, to) == to && close(from) == 0);
}

static void counter_at(int number, int count)
{
	moved(eventfd(count, EFD_NONBLOCK | EFD_CLOEXEC), number);
}

/* Data of what is ready, as bits. */
static int ready_bits(int instance)
{
	struct epoll_event events[16];
	int count = epoll_wait(instance, events, 16, 0), bits = 0;

	CHECK(count >= 0);
	for (int i = 0; i < count; i++)
		bits |= 1 << events[i].data.u64;
	return bits;
}

/* The registration of the file that is at `now` under the number `old`, and none under `now`. */
static void check_number(int instance, int now, int old)
{
	int kept = fcntl(old, F_DUPFD_CLOEXEC, 500);

	CHECK_EQ(epoll_ctl(instance, EPOLL_CTL_DEL, now, NULL), -1);
	CHECK_EQ(dup2(now, old), old);
	CHECK_EQ(epoll_ctl(instance, EPOLL_CTL_DEL, old, NULL), 0);
	CHECK_EQ(epoll_ctl(instance, EPOLL_CTL_DEL, old, NULL), -1);
	if (kept >= 0) {
		CHECK_EQ(dup3(kept, old, O_CLOEXEC), old);
		CHECK_EQ(close(kept), 0);
	} else {
		CHECK_EQ(close(old), 0);
	}
}

int main(void)
{
	moved(epoll_create1(0), plain);
	moved(epoll_create1(0), inner);

	counter_at(CLOSED, 1);
	MUST(add(plain, CLOSED, EPOLLIN, 1) == 0);
	moved(CLOSED, KEPT + CLOSED);

	counter_at(GIVEN, 1);
	MUST(add(plain, GIVEN, EPOLLIN | EPOLLET, 2) == 0);
	moved(GIVEN, KEPT + GIVEN);
	counter_at(GIVEN, 0);
	MUST(fcntl(GIVEN, F_SETFD, FD_CLOEXEC) == 0);
	MUST(add(plain, GIVEN, EPOLLIN, 3) == 0);

	MUST(add(inner, KEPT + CLOSED, EPOLLIN | EPOLLEXCLUSIVE, 4) == 0);
	MUST(dup2(inner, INNER) == INNER && add(plain, INNER, EPOLLIN, 5) == 0);
	moved(INNER, KEPT + INNER);
	MUST(close(KEPT + INNER) == 0); /* it is at `inner` */

	counter_at(FAR, 1);
	MUST(add(plain, FAR, EPOLLIN, 6) == 0);
	MUST(dup2(FAR, FAR + 1) == FAR + 1 && add(plain, FAR + 1, EPOLLIN, 7) == 0);
	moved(FAR, KEPT + FAR % 100);
	MUST(close(FAR + 1) == 0);

	counter_at(OWN, 1);
	MUST(add(plain, OWN, EPOLLIN, 8) == 0);
	moved(OWN, KEPT + OWN);
	moved(plain, OWN);
	plain = OWN;

	ready();
	int all = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;
	CHECK_EQ(ready_bits(plain), all);
	CHECK_EQ(ready_bits(plain), all & ~(1 << 2)); /* that one tells once */
	CHECK_EQ(ready_bits(inner), 1 << 4);
	CHECK_EQ(fcntl(GIVEN, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(CLOSED, F_GETFD), -1);
	CHECK_EQ(fcntl(FAR, F_GETFD), -1);
	CHECK_EQ(eventfd_write(GIVEN, 1), 0);
	CHECK_EQ(ready_bits(plain), (all | 1 << 3) & ~(1 << 2));
	check_number(plain, KEPT + CLOSED, CLOSED);
	check_number(plain, KEPT + GIVEN, GIVEN);
	check_number(plain, inner, INNER);
	check_number(plain, KEPT, FAR);
	check_number(plain, KEPT, FAR + 1);
	int instance = fcntl(plain, F_DUPFD_CLOEXEC, 400);
	check_number(instance, KEPT + OWN, OWN);
	CHECK_EQ(ready_bits(plain), 1 << 3);
	CHECK_EQ(ready_bits(inner), 1 << 4);
	return verdict();
}
