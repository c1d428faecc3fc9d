/*
 * Children that have died and were not waited for: each has its exact status, and nobody hears of a death twice.
 * A second process keeps SIGCHLD blocked and pending, a third has taken it.
 */
#include "tree.h"
#include <signal.h>
#include <sys/resource.h>

static const struct {
	int code, signal;
	int own; /* 1: a group of its own, 2: a session */
} deaths[] = { { 0, 0, 0 }, { 1, 0, 1 }, { 77, 0, 2 }, { 127, 0, 0 }, { 0, SIGKILL, 0 }, { 0, SIGTERM, 1 }, { 255, 0, 0 } };

#define DEATHS (int)(sizeof(deaths) / sizeof(*deaths) - !beyond_criu()) /* criu keeps seven bits of a code */

static volatile sig_atomic_t heard;

static void on_child(int signal)
{
	(void)signal;
	heard++;
}

static void die(void *number)
{
	int i = *(int *)number;

	close(set_up_ends[0]);
	close(set_up_ends[1]);
	if (deaths[i].own == 1)
		setpgid(0, 0);
	if (deaths[i].own == 2)
		setsid();
	if (deaths[i].signal)
		kill(getpid(), deaths[i].signal);
	_exit(deaths[i].code);
}

/* Returns when it is dead, without reaping it. */
static pid_t dead(int number)
{
	pid_t pid = child(die, &number);
	siginfo_t info;
	int got;

	while ((got = waitid(P_PID, pid, &info, WEXITED | WNOWAIT)) != 0 && errno == EINTR)
		;
	MUST(got == 0);
	return pid;
}

static void with_pending_signal(void *unused)
{
	sigset_t mask, pending;
	siginfo_t info = { 0 };
	struct timespec at_once = { 0, 0 };

	(void)unused;
	MUST(signal(SIGCHLD, SIG_DFL) != SIG_ERR);
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	MUST(sigprocmask(SIG_BLOCK, &mask, NULL) == 0);
	pid_t first = dead(2), second = dead(4); /* the second is not queued: a signal is pending once */
	is_set_up();
	until("check");
	CHECK(sigpending(&pending) == 0);
	CHECK_EQ(sigismember(&pending, SIGCHLD), 1);
	CHECK_EQ(sigtimedwait(&mask, &info, &at_once), SIGCHLD);
	CHECK_EQ(info.si_code, CLD_EXITED);
	CHECK_EQ(info.si_pid, first);
	CHECK_EQ(info.si_status, 77);
	CHECK_EQ(sigtimedwait(&mask, &info, &at_once), -1);
	CHECK_EQ(wait_status(first), 77 << 8);
	CHECK_EQ(wait_status(second), SIGKILL);
	check_no_child();
}

static void with_taken_signal(void *unused)
{
	sigset_t mask, pending;
	siginfo_t info;

	(void)unused;
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	MUST(sigprocmask(SIG_BLOCK, &mask, NULL) == 0);
	pid_t pid = dead(1);
	MUST(sigwaitinfo(&mask, &info) == SIGCHLD && info.si_pid == pid);
	is_set_up();
	until("check");
	CHECK(sigpending(&pending) == 0);
	CHECK_EQ(sigismember(&pending, SIGCHLD), 0);
	CHECK_EQ(wait_status(pid), 1 << 8);
	check_no_child();
}

int main(void)
{
	struct sigaction action = { .sa_handler = on_child, .sa_flags = SA_RESTART };
	pid_t zombies[sizeof(deaths) / sizeof(*deaths)], pending, taken;
	siginfo_t info;

	MUST(setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 }) == 0);
	MUST(sigaction(SIGCHLD, &action, NULL) == 0);
	tree_begins();
	for (int i = 0; i < DEATHS; i++)
		zombies[i] = dead(i);
	pending = child(with_pending_signal, NULL);
	taken = child(with_taken_signal, NULL);
	wait_set_up(2);
	MUST(heard == DEATHS);

	ready();
	CHECK_EQ(heard, DEATHS);
	for (int i = 0; i < DEATHS; i++) {
		CHECK_EQ(kill(zombies[i], 0), 0);
		CHECK_EQ(getpgid(zombies[i]), deaths[i].own ? zombies[i] : getpid());
		CHECK_EQ(getsid(zombies[i]), deaths[i].own == 2 ? zombies[i] : getpid());
		memset(&info, 0, sizeof(info));
		CHECK_EQ(waitid(P_PID, zombies[i], &info, WEXITED | WNOWAIT | WNOHANG), 0);
		CHECK_EQ(info.si_pid, zombies[i]);
		CHECK_EQ(info.si_code, deaths[i].signal ? CLD_KILLED : CLD_EXITED);
		CHECK_EQ(info.si_status, deaths[i].signal ? deaths[i].signal : deaths[i].code);
		CHECK_EQ(wait_status(zombies[i]), deaths[i].signal ? deaths[i].signal : deaths[i].code << 8);
		CHECK_EQ(kill(zombies[i], 0), -1);
	}
	CHECK_EQ(waitpid(-1, NULL, WNOHANG), 0);
	CHECK_EQ(heard, DEATHS);
	announce("check");
	CHECK_ENDED_WELL(pending);
	CHECK_ENDED_WELL(taken);
	CHECK(heard == DEATHS + 1 || heard == DEATHS + 2); /* two deaths at once are heard as one */
	check_no_child();
	return verdict();
}
