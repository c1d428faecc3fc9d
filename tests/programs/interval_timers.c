/* The three timers of setitimer(2): one far away, one that goes on firing, one on processor time. */
#include "selfcheck.h"
#include <signal.h>
#include <sys/time.h>

static volatile sig_atomic_t virtual_ticks, real_ticks;

static void on_virtual(int signal)
{
	(void)signal;
	virtual_ticks++;
}

static void on_real(int signal)
{
	(void)signal;
	real_ticks++;
}

int main(void)
{
	struct itimerval real = { { 0, 20000 }, { 0, 20000 } }, prof = { { 77, 123000 }, { 5000, 0 } };
	struct itimerval virtual = { { 0, 4000 }, { 0, 4000 } }, now;

	MUST(signal(SIGVTALRM, on_virtual) != SIG_ERR && signal(SIGALRM, on_real) != SIG_ERR);
	MUST(setitimer(ITIMER_REAL, &real, NULL) == 0);
	MUST(setitimer(ITIMER_VIRTUAL, &virtual, NULL) == 0);
	MUST(setitimer(ITIMER_PROF, &prof, NULL) == 0);
	ready();
	int before = real_ticks;
	for (int i = 0; i < 100 && real_ticks < before + 3; i++)
		sleep_ms(20);
	CHECK(real_ticks >= before + 3);
	before = virtual_ticks;
	for (time_t end = time(NULL) + 5; virtual_ticks < before + 3 && time(NULL) < end;)
		;
	CHECK(virtual_ticks >= before + 3);
	CHECK(getitimer(ITIMER_PROF, &now) == 0);
	CHECK_EQ(now.it_interval.tv_sec, 77);
	CHECK(now.it_interval.tv_usec >= 123000 && now.it_interval.tv_usec < 133000);
	CHECK(now.it_value.tv_sec > 4900 && now.it_value.tv_sec <= 5000);
	CHECK(getitimer(ITIMER_REAL, &now) == 0);
	CHECK_EQ(now.it_interval.tv_usec, 20000);
	return verdict();
}
