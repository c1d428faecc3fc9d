/*
 * One blocked call, by name, that a handler of SIGUSR1 must end with EINTR.  Passes by itself as soon as it does; that the
 * handler ran is not enough.
 */
#include "selfcheck.h"
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/wait.h>

static volatile sig_atomic_t handled;

static void handler(int signo)
{
	(void)signo;
	handled++;
}

int main(int count, char **arguments)
{
	const char *call = count > 1 ? arguments[1] : "";
	struct timespec long_time = { 60, 0 };
	int ends[2];
	long got = 0;

	MUST(pipe2(ends, O_CLOEXEC) == 0);
	MUST(sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = handler }, NULL) == 0);
	say("ready");
	if (strcmp(call, "read") == 0)
		got = read(ends[0], &ends, 1);
	else if (strcmp(call, "pause") == 0)
		got = pause();
	else if (strcmp(call, "poll") == 0)
		got = poll(NULL, 0, 60000);
	else if (strcmp(call, "nanosleep") == 0)
		got = nanosleep(&long_time, &long_time);
	else if (strcmp(call, "epoll") == 0)
		got = epoll_wait(epoll_create1(EPOLL_CLOEXEC), &(struct epoll_event){ 0 }, 1, -1);
	else if (strcmp(call, "sigwait") == 0)
		got = sigwaitinfo(&(sigset_t){ { 1 << (SIGUSR2 - 1) } }, NULL);
	else
		MUST(!"known call");
	CHECK(got == -1);
	CHECK_EQ(handled, 1);
	return verdict();
}
