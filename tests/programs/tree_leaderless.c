/*
 * Processes whose main threads have ended while two others go on, and what they keep all the same: name and ids of the
 * main thread, descriptors and memory, signals, timers, children that die with their parent, filters, a job-control
 * stop.  A process whose last thread just ends has the exit code of that one.  CRIU makes main threads that are about to
 * end: too late for a child that dies with its parent, and not at all in a process that is stopped.
 */
#include "tree.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/time.h>

#define NAME "left (them) all"
#define CODE 7
#define OWNER 1234

static atomic_long counted;
static struct identity was;
static pid_t below;
static int ends[2];
static sigset_t waiting;

static const char *of_main_thread(const char *key)
{
	return proc_field("/proc/self/status", key);
}

static void wait_for_the_end_of_main_thread(void)
{
	const char *state;

	while ((state = of_main_thread("State:")) == NULL || *state != 'Z')
		sleep_ms(1);
}

static void *count(void *unused)
{
	for (;;) {
		counted++;
		sleep_ms(2);
	}
	return unused;
}

static void check_alone(void)
{
	long before = counted;
	const char *state = of_main_thread("State:");

	for (int left = 1000; counted <= before && left > 0; left--)
		sleep_ms(10);
	CHECK(counted > before);
	CHECK(state != NULL && *state == 'Z');
	CHECK_IDENTITY(was);
}

/* Starts `other` beside a thread that counts, and ends with a code of its own. */
static void leave(void *(*other)(void *), int code)
{
	pthread_t threads[2];

	was = identity();
	MUST(pthread_create(&threads[0], NULL, count, NULL) == 0 && pthread_create(&threads[1], NULL, other, NULL) == 0);
	syscall(SYS_exit, code);
}

/* A process with much to keep. */

static void dies_with_parent(void *unused)
{
	(void)unused;
	until("alone"); /* the end of the thread that made this one counts as its parent's */
	MUST(!beyond_criu() || prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	stay();
}

static void *rich(void *unused)
{
	struct itimerval timer = { { 0, 0 }, { 3600, 0 } };
	siginfo_t info;
	char text[8] = "";

	wait_for_the_end_of_main_thread();
	announce("alone");
	MUST(setitimer(ITIMER_REAL, &timer, NULL) == 0);
	MUST(kill(getpid(), SIGUSR1) == 0); /* every thread blocks it */
	is_set_up();
	until("check");
	check_alone();
	CHECK(strstr(of_main_thread("Name:"), "left") != NULL);
	CHECK_EQ(atoi(of_main_thread("Uid:")), OWNER);
	CHECK_EQ(geteuid(), 0);
	CHECK_EQ(write(ends[1], "through", 7), 7);
	CHECK_EQ(read(ends[0], text, 7), 7);
	CHECK(strcmp(text, "through") == 0);
	CHECK_EQ(getitimer(ITIMER_REAL, &timer), 0);
	CHECK(timer.it_value.tv_sec > 3000);
	CHECK_EQ(sigtimedwait(&waiting, &info, &(struct timespec){ 0, 0 }), SIGUSR1);
	CHECK_ENDED_WELL(below);
	check_no_child();
	if (selfcheck_failures != 0)
		_exit(1);
	_exit(0);
	return unused;
}

static void in_rich(void *unused)
{
	(void)unused;
	below = child(dies_with_parent, NULL);
	MUST(pipe(ends) == 0);
	MUST(sigemptyset(&waiting) == 0 && sigaddset(&waiting, SIGUSR1) == 0);
	MUST(sigprocmask(SIG_BLOCK, &waiting, NULL) == 0);
	pthread_t threads[2];
	was = identity();
	MUST(pthread_create(&threads[0], NULL, count, NULL) == 0 && pthread_create(&threads[1], NULL, rich, NULL) == 0);
	MUST(prctl(PR_SET_NAME, NAME) == 0);
	MUST(syscall(SYS_setresuid, OWNER, OWNER, OWNER) == 0); /* of this thread alone */
	syscall(SYS_exit, 0);
}

/* One that just ends with its last thread. */

static atomic_int others;

/* The wait status of the main thread, the last number of its stat. */
static int shown_code(void)
{
	char text[1024] = "";
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);

	CHECK(read(fd, text, sizeof(text) - 1) > 0);
	CHECK_EQ(close(fd), 0);
	char *number = strrchr(text, ' ');
	return number != NULL ? atoi(number) : -1;
}

static void *last(void *unused)
{
	wait_for_the_end_of_main_thread();
	is_set_up();
	until("check");
	while (others != 0)
		sleep_ms(1);
	CHECK_EQ(shown_code(), 3 << 8);
	CHECK_IDENTITY(was);
	if (selfcheck_failures != 0)
		_exit(1);
	syscall(SYS_exit, CODE);
	return unused;
}

static void *first_to_end(void *unused)
{
	until("check");
	others = 0;
	syscall(SYS_exit, 0);
	return unused;
}

static void in_last(void *unused)
{
	pthread_t threads[2];

	(void)unused;
	was = identity();
	others = 1;
	MUST(pthread_create(&threads[0], NULL, first_to_end, NULL) == 0);
	MUST(pthread_create(&threads[1], NULL, last, NULL) == 0);
	syscall(SYS_exit, 3);
}

/* One under a filter that all of its threads share. */

static long synchronise(void)
{
	struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) };
	struct sock_fprog program = { 1, code };

	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
}

static int filters(void)
{
	const char *number = proc_field("/proc/thread-self/status", "Seccomp_filters:");

	return number != NULL ? atoi(number) : -1;
}

static void *filtered(void *unused)
{
	wait_for_the_end_of_main_thread();
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	MUST(synchronise() == 0);
	is_set_up();
	until("check");
	check_alone();
	CHECK_EQ(filters(), 1);
	CHECK_EQ(synchronise(), 0);
	CHECK_EQ(filters(), 2);
	_exit(selfcheck_failures != 0);
	return unused;
}

static void in_filtered(void *unused)
{
	(void)unused;
	leave(filtered, 0);
}

/* One that is stopped. */

static void *stopped(void *unused)
{
	wait_for_the_end_of_main_thread();
	is_set_up();
	until("check");
	check_alone();
	_exit(selfcheck_failures != 0);
	return unused;
}

static void in_stopped(void *unused)
{
	(void)unused;
	leave(stopped, 0);
}

int main(void)
{
	pid_t with_much, with_last, with_filter, with_stop;
	siginfo_t info;

	tree_begins();
	with_much = child(in_rich, NULL);
	with_last = child(in_last, NULL);
	with_filter = child(in_filtered, NULL);
	with_stop = child(in_stopped, NULL);
	wait_set_up(5);
	if (beyond_criu()) {
		MUST(kill(with_stop, SIGSTOP) == 0);
		MUST(waitid(P_PID, with_stop, &info, WSTOPPED) == 0);
	}
	ready();
	announce("check");
	CHECK_ENDED_WELL(with_much);
	CHECK_EQ(wait_status(with_last), CODE << 8);
	CHECK_ENDED_WELL(with_filter);
	CHECK_EQ(kill(with_stop, SIGCONT), 0);
	CHECK_ENDED_WELL(with_stop);
	check_no_child();
	return verdict();
}
