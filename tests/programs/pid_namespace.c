/*
 * The init of a pid namespace: whatever number a program holds is right inside.  Threads and children with their
 * sessions and groups, owners of descriptors, timers for threads, senders of signals, a mutex that knows its owner,
 * orphans that were adopted, also by a session whose leader is no child of init's, and who is dead.
 */
#include "tree.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#ifndef F_SETOWN_EX
#define F_SETOWN_EX 15
#define F_GETOWN_EX 16
#endif
#ifndef SIGEV_THREAD_ID
#define SIGEV_THREAD_ID 4
#endif
#define sigev_tid(event) ((event)._sigev_un._tid)

static struct {
	struct identity orphan;
	atomic_int orphaned;
} *book;
static int shared[2]; /* a pipe that init and a child have; its reading end is owned by the child's group */
static pthread_mutex_t held;
static atomic_int thread_is, thread_may_end, ticks;
static atomic_int thread_failed;

static void plain(void *unused)
{
	(void)unused;
	MUST(getppid() == 1 && getsid(0) == 1 && getpgrp() == 1);
	stay();
}

/* Adopted by init, in the session of who is no child of init's. */
static void orphan(void *unused)
{
	pid_t session = getsid(0);

	(void)unused;
	while (getppid() != 1)
		sleep_ms(1);
	MUST(session != 1 && getsid(0) == session);
	book->orphan = identity();
	book->orphaned = 1;
	stay();
}

static void passing(void *unused)
{
	(void)unused;
	if (fork() == 0) {
		selfcheck_failures = 0;
		orphan(NULL);
		_exit(selfcheck_failures != 0);
	}
	_exit(0);
}

static void shell(void *unused)
{
	(void)unused;
	MUST(setsid() == getpid());
	CHECK_ENDED_WELL(child(passing, NULL));
	stay();
}

static void terminal(void *unused)
{
	pid_t inner;

	(void)unused;
	MUST(getppid() == 1);
	inner = child(shell, NULL);
	while (!book->orphaned)
		sleep_ms(1);
	stay();
	CHECK_ENDED_WELL(inner);
	check_no_child();
}

static void owner(void *unused)
{
	struct f_owner_ex is = { -1, -1 };

	(void)unused;
	MUST(setpgid(0, 0) == 0);
	stay();
	CHECK(fcntl(shared[0], F_GETOWN_EX, &is) == 0);
	CHECK_EQ(is.type, F_OWNER_PGRP);
	CHECK_EQ(is.pid, getpgrp());
}

/* Sends a signal that waits, and stays. */
static void sender(void *unused)
{
	union sigval value = { .sival_int = 4711 };

	(void)unused;
	MUST(sigqueue(1, SIGRTMIN, value) == 0);
	stay();
}

static void tick(int signal)
{
	(void)signal;
	if (syscall(SYS_gettid) == thread_is)
		ticks++;
	else
		thread_failed = 1;
}

static void *thread(void *unused)
{
	(void)unused;
	MUST(pthread_mutex_lock(&held) == 0);
	thread_is = (int)syscall(SYS_gettid);
	while (!thread_may_end)
		sleep_ms(1);
	if (thread_is != (int)syscall(SYS_gettid) || pthread_mutex_unlock(&held) != 0)
		thread_failed = 1;
	return NULL;
}

int main(void)
{
	struct identity was = identity();
	struct f_owner_ex group, thread_owner = { F_OWNER_TID, 0 }, is = { -1, -1 };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1 };
	struct itimerspec soon = { { 0, 20 * 1000000 }, { 0, 20 * 1000000 } };
	pthread_mutexattr_t attributes;
	siginfo_t told;
	sigset_t waits, none;
	timer_t timer;
	pthread_t other;
	pid_t children[5];
	int fd = open("book", O_RDWR | O_CREAT, 0644), own[2];

	MUST(was.pid == 1 && was.parent == 0 && was.session == 1 && was.group == 1);
	MUST(fd >= 0 && ftruncate(fd, sizeof(*book)) == 0);
	book = mmap(NULL, sizeof(*book), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(book != MAP_FAILED && close(fd) == 0);
	sigemptyset(&waits);
	sigaddset(&waits, SIGRTMIN);
	sigaddset(&waits, SIGUSR2);
	sigaddset(&waits, SIGCHLD);
	MUST(sigprocmask(SIG_BLOCK, &waits, NULL) == 0 && signal(SIGUSR1, tick) != SIG_ERR);
	MUST(pipe(shared) == 0 && pipe(own) == 0);
	tree_begins();

	children[0] = child(plain, NULL);
	children[1] = child(terminal, NULL);
	children[2] = child(owner, NULL);
	children[3] = child(sender, NULL);
	wait_set_up(6);
	children[4] = fork();
	if (children[4] == 0)
		_exit(7);
	MUST(waitid(P_PID, children[4], &told, WEXITED | WNOWAIT) == 0);

	MUST(pthread_mutexattr_init(&attributes) == 0);
	MUST(pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK) == 0);
	MUST(pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST) == 0);
	MUST(pthread_mutex_init(&held, &attributes) == 0);
	MUST(pthread_create(&other, NULL, thread, NULL) == 0);
	while (thread_is == 0)
		sleep_ms(1);
	group = (struct f_owner_ex){ F_OWNER_PGRP, children[2] };
	thread_owner.pid = thread_is;
	MUST(fcntl(shared[0], F_SETOWN_EX, &group) == 0);
	if (beyond_criu())
		MUST(fcntl(own[0], F_SETOWN_EX, &thread_owner) == 0);
	sigev_tid(event) = thread_is;
	MUST(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &soon, NULL) == 0);

	ready();
	CHECK_IDENTITY(was);
	CHECK(fcntl(shared[0], F_GETOWN_EX, &is) == 0);
	CHECK_EQ(is.type, F_OWNER_PGRP);
	CHECK_EQ(is.pid, children[2]);
	if (beyond_criu()) {
		CHECK(fcntl(own[0], F_GETOWN_EX, &is) == 0);
		CHECK_EQ(is.type, F_OWNER_TID);
		CHECK_EQ(is.pid, thread_is);
	}
	CHECK_EQ(pthread_mutex_trylock(&held), EBUSY);
	CHECK_EQ(pthread_mutex_unlock(&held), EPERM);
	for (int before = ticks, left = 1000; ticks == before && left > 0; left--)
		sleep_ms(10);
	CHECK(ticks > 0);
	CHECK(timer_delete(timer) == 0);
	int thread_was = thread_is;

	thread_may_end = 1;
	CHECK(pthread_join(other, NULL) == 0);
	CHECK_EQ(thread_failed, 0);

	sigemptyset(&none);
	sigaddset(&none, SIGRTMIN);
	CHECK_EQ(sigwaitinfo(&none, &told), SIGRTMIN);
	CHECK_EQ(told.si_pid, children[3]);
	CHECK_EQ(told.si_value.sival_int, 4711);
	sigemptyset(&none);
	sigaddset(&none, SIGCHLD);
	CHECK_EQ(sigwaitinfo(&none, &told), SIGCHLD);
	CHECK_EQ(told.si_pid, children[4]);
	CHECK_EQ(wait_status(children[4]), 7 << 8);

	/* Its own namespace goes on: it gives numbers, and hides what is outside. */
	pid_t born = fork();

	if (born == 0)
		_exit(getpid() == 1 || getppid() != 1);
	CHECK(born > 1);
	if (beyond_criu()) /* and nobody's again at once */
		CHECK(born > thread_was && born > children[4] && born > book->orphan.pid);
	CHECK_ENDED_WELL(born);
	CHECK_EQ(kill(1 << 21, 0), -1);
	announce("check");
	for (int number = 0; number < 4; number++)
		CHECK_ENDED_WELL(children[number]);
	CHECK_EQ(getsid(book->orphan.pid), book->orphan.session);
	CHECK_ENDED_WELL(book->orphan.pid);
	check_no_child();
	return verdict();
}
