/*
 * timerfd: what remains, intervals, clocks, flags, and expirations that were not read.  CRIU loses the phase of a
 * periodic timer that has expired, and shifts a time of day by the time between dump and restore.
 */
#include "selfcheck.h"
#include <poll.h>
#include <sys/timerfd.h>

#define SECOND 1000000000LL
#define CLOCK_REALTIME_ALARM_ 8
#define CLOCK_BOOTTIME_ALARM_ 9

static int64_t now(int clock)
{
	struct timespec time;

	MUST(clock_gettime(clock, &time) == 0);
	return time.tv_sec * SECOND + time.tv_nsec;
}

static struct timespec moment(int64_t time)
{
	return (struct timespec){ time / SECOND, time % SECOND };
}

static int timer(int clock, int flags, int64_t first, int64_t interval)
{
	struct itimerspec setting = { moment(interval), moment(first) };
	int fd = timerfd_create(clock, TFD_NONBLOCK);

	MUST(fd >= 0 && timerfd_settime(fd, flags, &setting, NULL) == 0);
	return fd;
}

static int64_t left(int fd, int64_t interval)
{
	struct itimerspec setting;

	CHECK(timerfd_gettime(fd, &setting) == 0);
	CHECK_EQ(setting.it_interval.tv_sec * SECOND + setting.it_interval.tv_nsec, interval);
	return setting.it_value.tv_sec * SECOND + setting.it_value.tv_nsec;
}

static int expires(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };

	return poll(&poller, 1, 10000) == 1;
}

static int64_t ticks(int fd)
{
	uint64_t value = 0;
	ssize_t size = read(fd, &value, 8);
	int nothing = size == -1 && errno == EAGAIN;

	CHECK(nothing || size == 8);
	return value;
}

static const char *fdinfo_of(int fd)
{
	static char path[64];

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	return path;
}

/* It has run for some of its time, and for less than ten minutes. */
#define CHECK_GOES_ON(fd, whole, interval)                                                                             \
	do {                                                                                                           \
		int64_t left_ = left(fd, interval);                                                                    \
		CHECK(left_ < (whole) && left_ > (whole) - 600 * SECOND);                                              \
		CHECK_EQ(ticks(fd), 0);                                                                                \
	} while (0)

/* Expires within a millisecond or so of `when` of its clock. */
static void check_expiry(int fd, int clock, int64_t when, int64_t tolerance)
{
	int64_t before = now(clock), remains = left(fd, 0), after = now(clock);

	CHECK(remains <= when - before + tolerance);
	CHECK(remains >= when - after - tolerance);
}

int main(void)
{
	static const int clocks[] = { CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME };
	int once[3], periodic[3], alarms[2] = { -1, -1 }, idle, expired, running, of_day = -1, ticking = -1;
	int64_t hour = 3600 * SECOND, tomorrow = now(CLOCK_REALTIME) + 24 * hour, begun = 0;
	int64_t millisecond = SECOND / 1000;

	for (int i = 0; i < 3; i++) {
		once[i] = timer(clocks[i], 0, hour, 0);
		periodic[i] = timer(clocks[i], TFD_TIMER_ABSTIME, now(clocks[i]) + 2 * hour, 7 * SECOND + 1);
	}
	MUST((idle = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC)) >= 0);
	expired = timer(CLOCK_MONOTONIC, 0, 1, 0);
	MUST(expires(expired));
	running = timer(CLOCK_MONOTONIC, 0, millisecond, hour);
	MUST(expires(running));
	if (beyond_criu()) {
		of_day = timer(CLOCK_REALTIME, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, tomorrow, 0);
		begun = now(CLOCK_MONOTONIC);
		ticking = timer(CLOCK_MONOTONIC, 0, millisecond, millisecond);
		for (int i = 0; i < 2; i++) /* a machine without an alarm clock has none of these */
			if ((alarms[i] = timerfd_create(CLOCK_REALTIME_ALARM_ + i, TFD_NONBLOCK)) >= 0) {
				struct itimerspec setting = { { 5, 0 }, { 3600, 0 } };
				MUST(timerfd_settime(alarms[i], 0, &setting, NULL) == 0);
			}
		while (now(CLOCK_MONOTONIC) < begun + 20 * millisecond)
			sleep_ms(1);
	}

	ready();

	for (int i = 0; i < 3; i++) {
		CHECK_EQ(fcntl(once[i], F_GETFL), O_RDWR | O_NONBLOCK);
		CHECK_GOES_ON(once[i], hour, 0);
		CHECK_GOES_ON(periodic[i], 2 * hour, 7 * SECOND + 1);
	}
	CHECK_EQ(left(idle, 0), 0);
	CHECK_EQ(fcntl(idle, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(idle, F_GETFL), O_RDWR);
	CHECK_EQ(ticks(expired), 1);
	CHECK_EQ(ticks(expired), 0);
	CHECK_EQ(left(expired, 0), 0);
	CHECK_EQ(ticks(running), 1);
	CHECK_GOES_ON(running, hour, hour);
	if (beyond_criu()) {
		check_expiry(of_day, CLOCK_REALTIME, tomorrow, SECOND / 2);
		CHECK(strcmp(proc_field(fdinfo_of(of_day), "settime flags:") ?: "", "03") == 0);
		/* All that have passed, of those before the dump too; and the timer did not stand still meanwhile. */
		int64_t seen = ticks(ticking);
		CHECK(seen >= 20);
		CHECK(seen <= (now(CLOCK_MONOTONIC) - begun) / millisecond + 1);
		CHECK(expires(ticking));
		for (int i = 0; i < 2; i++)
			if (alarms[i] >= 0)
				CHECK_GOES_ON(alarms[i], hour, 5 * SECOND);
	}
	struct itimerspec soon = { { 0, 0 }, { 0, 1 } };
	CHECK(timerfd_settime(once[1], 0, &soon, NULL) == 0);
	CHECK(expires(once[1]));
	CHECK_EQ(ticks(once[1]), 1);
	return verdict();
}
