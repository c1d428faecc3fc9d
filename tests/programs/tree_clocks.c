/*
 * The clocks of a tree stand still between its dump and its restore, which are SECONDS_APART: CLOCK_MONOTONIC and
 * CLOCK_BOOTTIME go on from where they were, only CLOCK_REALTIME jumps.  A sleep until a point of CLOCK_MONOTONIC ends
 * at that point.
 */
#include "tree.h"

#define BILLION 1000000000LL

static const clockid_t clocks[] = { CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_REALTIME };

static int64_t now(clockid_t clock)
{
	struct timespec time;

	CHECK(clock_gettime(clock, &time) == 0);
	return time.tv_sec * BILLION + time.tv_nsec;
}

/* Reads the clocks until `name` is there, and checks the longest step of each. */
static void watch(const char *name)
{
	const char *apart = getenv("SECONDS_APART");
	int64_t last[3], step[3] = { 0 }, least = apart != NULL ? atoll(apart) * BILLION : 0;

	for (int i = 0; i < 3; i++)
		last[i] = now(clocks[i]);
	while (access(step_file(name, ""), F_OK) != 0) {
		sleep_ms(10);
		for (int i = 0; i < 3; i++) {
			int64_t this = now(clocks[i]);
			struct timespec by_syscall;

			CHECK(i == 2 || this >= last[i]);
			if (this - last[i] > step[i])
				step[i] = this - last[i];
			last[i] = this;
			/* The vdso and the kernel are of one mind. */
			CHECK(syscall(SYS_clock_gettime, clocks[i], &by_syscall) == 0);
			CHECK(llabs(by_syscall.tv_sec * BILLION + by_syscall.tv_nsec - this) < BILLION);
		}
	}
	CHECK(step[0] < BILLION * 3 / 2);
	CHECK(step[1] < BILLION * 3 / 2);
	CHECK(step[2] >= least);
}

static void watching(void *unused)
{
	(void)unused;
	is_set_up();
	watch("go");
}

static void sleeping(void *until_when)
{
	int64_t end = *(int64_t *)until_when;
	struct timespec time = { end / BILLION, end % BILLION };
	int answer;

	is_set_up();
	while ((answer = clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL)) == EINTR)
		;
	CHECK_EQ(answer, 0);
	int64_t late = now(CLOCK_MONOTONIC) - end;
	CHECK(late >= 0);
	CHECK(late < BILLION * 3 / 2);
	announce("slept");
}

int main(void)
{
	int64_t end = now(CLOCK_MONOTONIC) + 2 * BILLION;
	pid_t watcher, sleeper;

	tree_begins();
	watcher = child(watching, NULL);
	sleeper = child(sleeping, &end);
	wait_set_up(2);
	say("ready");
	watch("go");
	CHECK_ENDED_WELL(watcher);
	CHECK_ENDED_WELL(sleeper);
	check_no_child();
	return verdict();
}
