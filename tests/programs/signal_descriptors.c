/* signalfd: which signals are read from it, its flags, and signals that wait to be read. */
#include "selfcheck.h"
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

static sigset_t set_of(int one, int other)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, one);
	sigaddset(&set, other);
	return set;
}

static int readable(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };

	return poll(&poller, 1, 0);
}

/* One signal, or 0. */
static struct signalfd_siginfo taken(int fd)
{
	struct signalfd_siginfo info = { 0 };
	ssize_t size = read(fd, &info, sizeof(info));
	int nothing = size == -1 && errno == EAGAIN;

	CHECK(nothing || size == sizeof(info));
	return info;
}

int main(void)
{
	int number = SIGRTMIN + 3, first, second, poller;
	sigset_t usual = set_of(SIGUSR1, number), other = set_of(SIGUSR2, SIGCHLD), all;
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = 77 }, got;

	sigfillset(&all);
	MUST(sigprocmask(SIG_BLOCK, &all, NULL) == 0);
	MUST((first = signalfd(-1, &usual, SFD_NONBLOCK | SFD_CLOEXEC)) >= 0);
	MUST((second = signalfd(-1, &other, 0)) >= 0 && fcntl(second, F_SETFL, O_NONBLOCK | O_APPEND) == 0);
	MUST((poller = epoll_create1(0)) >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, second, &event) == 0);
	MUST(sigqueue(getpid(), number, (union sigval){ .sival_int = 4711 }) == 0);
	MUST(sigqueue(getpid(), number, (union sigval){ .sival_int = 4712 }) == 0);
	MUST(kill(getpid(), SIGUSR1) == 0 && readable(first) == 1 && readable(second) == 0);

	ready();

	CHECK_EQ(fcntl(first, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(first, F_GETFL), O_RDWR | O_NONBLOCK);
	CHECK_EQ(fcntl(second, F_GETFL), O_RDWR | O_NONBLOCK | O_APPEND);
	CHECK_EQ(readable(second), 0);
	struct signalfd_siginfo info = taken(first);
	CHECK_EQ(info.ssi_signo, SIGUSR1);
	CHECK_EQ(info.ssi_pid, getpid());
	for (int value = 4711; value <= 4712; value++) {
		info = taken(first);
		CHECK_EQ(info.ssi_signo, number);
		CHECK_EQ(info.ssi_int, value);
	}
	CHECK_EQ(taken(first).ssi_signo, 0);

	MUST(raise(SIGUSR2) == 0);
	CHECK_EQ(readable(first), 0);
	CHECK_EQ(epoll_wait(poller, &got, 1, 0), 1);
	CHECK_EQ(got.data.u64, 77);
	CHECK_EQ(taken(second).ssi_signo, SIGUSR2);
	sigaddset(&usual, SIGUSR2);
	CHECK_EQ(signalfd(first, &usual, 0), first);
	MUST(raise(SIGUSR2) == 0);
	CHECK_EQ(taken(first).ssi_signo, SIGUSR2);
	return verdict();
}
