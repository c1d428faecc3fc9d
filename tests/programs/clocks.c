/* The clocks, by the vdso and by system calls: they agree, go on, and never go back. */
#include "selfcheck.h"
#include <sched.h>
#include <sys/time.h>

static int64_t by_vdso(clockid_t clock)
{
	struct timespec now;

	CHECK(clock_gettime(clock, &now) == 0);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

static int64_t by_syscall(clockid_t clock)
{
	struct timespec now;

	CHECK(syscall(SYS_clock_gettime, clock, &now) == 0);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

static const clockid_t all[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI, CLOCK_MONOTONIC_RAW,
				 CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE };

int main(void)
{
	int64_t before[sizeof(all) / sizeof(*all)];
	struct timeval day;
	unsigned cpu = 99, node = 99;

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		before[i] = by_vdso(all[i]);
	ready();
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		int64_t first = by_syscall(all[i]), between = by_vdso(all[i]), last = by_syscall(all[i]);

		CHECK(first >= before[i]);
		CHECK(between >= first && last >= between);
		CHECK(last - before[i] < 600000000000L);
	}
	CHECK(gettimeofday(&day, NULL) == 0 && llabs(day.tv_sec - by_syscall(CLOCK_REALTIME) / 1000000000L) <= 1);
	CHECK(llabs(time(NULL) - by_syscall(CLOCK_REALTIME) / 1000000000L) <= 1);
	CHECK(getcpu(&cpu, &node) == 0 && cpu < 4096 && node < 1024);
	return verdict();
}
