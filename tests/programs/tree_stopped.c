/*
 * Stopped children with two threads each: by SIGSTOP, by SIGTSTP, and by SIGSTOP without that their parent has asked.
 * They are still stopped afterwards, and SIGCONT makes them go on.
 */
#include "tree.h"
#include <pthread.h>
#include <signal.h>

static volatile sig_atomic_t continued;
static atomic_long counted;

static void on_continue(int signal)
{
	(void)signal;
	continued++;
}

static void *count(void *unused)
{
	(void)unused;
	for (;;) {
		counted++;
		sleep_ms(5);
	}
	return NULL;
}

static void stops(void *signal_number)
{
	pthread_t thread;
	int stop = *(int *)signal_number;
	pid_t parent = getppid();

	MUST(signal(SIGCONT, on_continue) != SIG_ERR);
	MUST(setpgid(0, 0) == 0); /* no orphaned group, whose members SIGTSTP does not stop: the parent is in the session */
	MUST(pthread_create(&thread, NULL, count, NULL) == 0);
	is_set_up();
	MUST(kill(getpid(), stop) == 0);
	/* From here on it has been continued. */
	long before = counted;
	for (int left = 1000; counted <= before && left > 0; left--)
		sleep_ms(10);
	CHECK(counted > before);
	CHECK_EQ(continued, 1);
	CHECK_EQ(getppid(), parent);
	CHECK_EQ(getpgrp(), getpid());
}

static char state(pid_t pid)
{
	char name[64];

	snprintf(name, sizeof(name), "/proc/%d/status", number_in_proc(pid));
	const char *word = proc_field(name, "State:");
	return word != NULL ? *word : '?';
}

int main(void)
{
	int signals[3] = { SIGSTOP, SIGTSTP, SIGSTOP }, status;
	pid_t children[3];
	siginfo_t info;

	tree_begins();
	for (int i = 0; i < 3; i++)
		children[i] = child(stops, &signals[i]);
	wait_set_up(3);
	for (int i = 0; i < 3; i++) {
		/* The last is looked at without taking the report away. */
		MUST(waitid(P_PID, children[i], &info, WSTOPPED | (i == 2 ? WNOWAIT : 0)) == 0);
		MUST(info.si_code == CLD_STOPPED && info.si_status == signals[i]);
	}
	ready();
	for (int i = 0; i < 3; i++)
		CHECK_EQ(state(children[i]), 'T');
	if (beyond_criu()) {
		/* What was reported is not reported again. */
		for (int i = 0; i < 2; i++)
			CHECK_EQ(waitpid(children[i], &status, WUNTRACED | WNOHANG), 0);
	}
	CHECK_EQ(waitpid(children[2], &status, WUNTRACED | WNOHANG), children[2]);
	CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	sleep_ms(50);
	for (int i = 0; i < 3; i++)
		CHECK_EQ(state(children[i]), 'T');
	for (int i = 0; i < 3; i++) {
		MUST(children[i] > 1);
		CHECK_EQ(kill(children[i], SIGCONT), 0);
		CHECK_EQ(waitpid(children[i], &status, WCONTINUED), children[i]);
		CHECK(WIFCONTINUED(status) || status == 0);
		if (WIFCONTINUED(status))
			CHECK_ENDED_WELL(children[i]);
	}
	check_no_child();
	return verdict();
}
