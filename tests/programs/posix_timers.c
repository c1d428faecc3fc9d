/* POSIX timers: clocks, kinds of notification, ids with a hole, disarmed ones, remaining time, overruns. */
#include "selfcheck.h"
#include <pthread.h>
#include <signal.h>

static volatile sig_atomic_t fired, fired_value, fired_tid, overrun_id = -1, most_overruns;

static void on_timer(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)context;
	fired++;
	fired_value = info->si_value.sival_int;
	fired_tid = syscall(SYS_gettid);
	if (fired_value == 44) { /* asked here: the next delivery has a count of its own */
		int overruns = syscall(SYS_timer_getoverrun, overrun_id);

		if (overruns > most_overruns)
			most_overruns = overruns;
	}
}

static int create(clockid_t clock, int notify, int signal, int value)
{
	struct { union sigval value; int signal, notify, tid, pad[11]; } event = {
		.value.sival_int = value, .signal = signal, .notify = notify, .tid = syscall(SYS_gettid) };
	int id = -1;

	MUST(syscall(SYS_timer_create, clock, &event, &id) == 0);
	return id;
}

static void arm(int id, long milliseconds, long interval)
{
	struct itimerspec set = { { interval / 1000, interval % 1000 * 1000000 },
				  { milliseconds / 1000, milliseconds % 1000 * 1000000 } };

	MUST(syscall(SYS_timer_settime, id, 0, &set, NULL) == 0);
}

static void check_left(int id, long most, long least, long interval)
{
	struct itimerspec now;

	CHECK(syscall(SYS_timer_gettime, id, &now) == 0);
	CHECK_EQ(now.it_interval.tv_sec * 1000 + now.it_interval.tv_nsec / 1000000, interval);
	CHECK(now.it_value.tv_sec * 1000 <= most && now.it_value.tv_sec * 1000 >= least);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = on_timer, .sa_flags = SA_SIGINFO };
	sigset_t blocked;

	MUST(sigaction(SIGRTMIN, &action, NULL) == 0 && sigaction(SIGRTMIN + 1, &action, NULL) == 0);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGRTMIN + 1);
	MUST(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
	int far = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN, 11);
	int gone = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN, 0);
	int silent = create(CLOCK_REALTIME, SIGEV_NONE, 0, 0);
	int ticking = create(CLOCK_MONOTONIC, SIGEV_THREAD_ID, SIGRTMIN, 22);
	int disarmed = create(CLOCK_PROCESS_CPUTIME_ID, SIGEV_SIGNAL, SIGRTMIN, 33);
	int overrun = create(CLOCK_MONOTONIC, SIGEV_SIGNAL, SIGRTMIN + 1, 44);

	overrun_id = overrun;
	MUST(syscall(SYS_timer_delete, gone) == 0);
	arm(far, 1000000, 7000);
	arm(silent, 2000000, 0);
	arm(ticking, 20, 20);
	arm(overrun, 1, 1);
	sleep_ms(30);
	ready();

	int before = fired;
	for (int i = 0; i < 100 && fired < before + 3; i++)
		sleep_ms(20);
	CHECK(fired >= before + 3);
	CHECK_EQ(fired_value, 22);
	CHECK_EQ(fired_tid, getpid());
	check_left(far, 1000000, 900000, 7000);
	check_left(silent, 2000000, 1900000, 0);
	check_left(disarmed, 0, 0, 0);
	CHECK_EQ(syscall(SYS_timer_getoverrun, gone), -1);
	arm(ticking, 0, 0);
	CHECK(sigprocmask(SIG_UNBLOCK, &blocked, NULL) == 0);
	CHECK_EQ(fired_value, 44);
	CHECK(most_overruns > 0);
	return verdict();
}
