/*
 * One thread in each kind of blocking system call.  The call goes on as if nothing had happened; only those that the
 * kernel ends with EINTR when a task is stopped and continued (signal(7)), or whose restart block cannot be carried to
 * another process, may say EINTR, and only if RESTORED says so.
 */
#include "selfcheck.h"
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>

static int a_pipe[2], full[2], event, epoll;
static uint32_t word, timed_word;
static struct timespec deadline;
static atomic_int finished;

/* Each returns 0 if its call ended as it should have, -1 with errno otherwise. */
static long in_read(void) { char c; return read(a_pipe[0], &c, 1) == 1 && c == 'r' ? 0 : -1; }
static long in_write(void) { return write(full[1], "w", 1) == 1 ? 0 : -1; }
static long in_futex(void) { return syscall(SYS_futex, &word, FUTEX_WAIT, 0, NULL, NULL, 0); }
static long in_poll(void) { struct pollfd p = { event, POLLIN, 0 }; return poll(&p, 1, -1) == 1 ? 0 : -1; }
static long in_select(void)
{
	fd_set set;

	FD_ZERO(&set);
	FD_SET(event, &set);
	return select(event + 1, &set, NULL, NULL, NULL) == 1 ? 0 : -1;
}
static long in_deadline(void) { return -(errno = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, NULL)); }
static long in_sleep(void) { struct timespec t = { 3, 0 }; return nanosleep(&t, NULL); }
static long in_timed_poll(void) { return poll(NULL, 0, 3000); }
static long in_timed_futex(void)
{
	struct timespec t = { 3, 0 };

	return syscall(SYS_futex, &timed_word, FUTEX_WAIT, 0, &t, NULL, 0) == -1 && errno == ETIMEDOUT ? 0 : -1;
}
static long in_epoll(void) { struct epoll_event e; return epoll_wait(epoll, &e, 1, -1) == 1 ? 0 : -1; }
static long in_sigwait(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	return sigwaitinfo(&set, NULL) == SIGUSR1 ? 0 : -1;
}

static struct {
	const char *name;
	long (*call)(void);
	int may_be_interrupted; /* 1: after a restore, 2: always */
	long result;
	int error;
} calls[] = {
	{ "read", in_read, 0, 0, 0 },           { "write", in_write, 0, 0, 0 },
	{ "futex", in_futex, 0, 0, 0 },         { "poll", in_poll, 0, 0, 0 },
	{ "select", in_select, 0, 0, 0 },       { "clock_nanosleep to a deadline", in_deadline, 0, 0, 0 },
	{ "nanosleep", in_sleep, 1, 0, 0 },     { "poll with timeout", in_timed_poll, 1, 0, 0 },
	{ "futex with timeout", in_timed_futex, 1, 0, 0 },
	{ "epoll_wait", in_epoll, 2, 0, 0 },    { "sigwaitinfo", in_sigwait, 2, 0, 0 },
};
#define CALLS (sizeof(calls) / sizeof(*calls))

static void *thread(void *argument)
{
	typeof(&calls[0]) mine = argument;

	errno = 0;
	mine->result = mine->call();
	mine->error = errno;
	finished++;
	return NULL;
}

int main(void)
{
	pthread_t threads[CALLS];
	struct epoll_event interest = { EPOLLIN, { 0 } };
	int restored = getenv("RESTORED") != NULL;
	sigset_t set;
	char page[4096] = "";

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	MUST(sigprocmask(SIG_BLOCK, &set, NULL) == 0);
	MUST(pipe(a_pipe) == 0 && pipe(full) == 0 && (event = eventfd(0, EFD_NONBLOCK)) >= 0);
	MUST(fcntl(full[1], F_SETPIPE_SZ, 4096) == 4096 && write(full[1], page, 4096) == 4096);
	MUST((epoll = epoll_create1(0)) >= 0 && epoll_ctl(epoll, EPOLL_CTL_ADD, event, &interest) == 0);
	MUST(clock_gettime(CLOCK_MONOTONIC, &deadline) == 0);
	deadline.tv_sec += 3;
	for (size_t i = 0; i < CALLS; i++)
		MUST(pthread_create(&threads[i], NULL, thread, &calls[i]) == 0);
	sleep_ms(50);
	CHECK_EQ(finished, 0);

	ready();
	word = 1;
	for (int i = 0; i < 100 && syscall(SYS_futex, &word, FUTEX_WAKE, 9, NULL, NULL, 0) == 0 && finished < (int)CALLS; i++)
		sleep_ms(10);
	CHECK(write(a_pipe[1], "r", 1) == 1);
	CHECK(read(full[0], page, sizeof(page)) == sizeof(page));
	CHECK(eventfd_write(event, 1) == 0);
	CHECK(kill(getpid(), SIGUSR1) == 0);
	for (size_t i = 0; i < CALLS; i++) {
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
		int allowed = calls[i].error == EINTR && calls[i].may_be_interrupted > !restored;
		if (calls[i].result != 0 && !allowed) {
			selfcheck_failures++;
			say("FAIL: %s ended with %ld, %s", calls[i].name, calls[i].result, strerror(calls[i].error));
		}
	}
	return verdict();
}
