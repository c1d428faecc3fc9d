/*
 * Uses further pid namespaces, in one of the ways that HOW names: a child in a new one; children to come in a new one, of
 * the main thread or of another; a file of /proc that has the number of the task itself in its name.
 */
#include "selfcheck.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

static atomic_int done;

static void *leaves(void *unused)
{
	(void)unused;
	MUST(unshare(CLONE_NEWPID) == 0);
	done = 1;
	for (;;)
		pause();
}

int main(void)
{
	const char *how = getenv("HOW");
	pid_t inner = 0;
	pthread_t thread;

	MUST(how != NULL);
	if (strcmp(how, "child") == 0) {
		MUST(unshare(CLONE_NEWPID) == 0);
		inner = fork();
		if (inner == 0)
			for (;;)
				pause();
		MUST(inner > 0);
	} else if (strcmp(how, "children") == 0) {
		MUST(unshare(CLONE_NEWPID) == 0);
	} else if (strcmp(how, "thread") == 0) {
		MUST(pthread_create(&thread, NULL, leaves, NULL) == 0);
		while (!done)
			sleep_ms(1);
	} else if (strcmp(how, "file") == 0) {
		MUST(open("/proc/self/stat", O_RDONLY) >= 0);
	} else {
		MUST(!"a way");
	}
	ready();
	if (inner > 0)
		CHECK(kill(inner, SIGKILL) == 0 && waitpid(inner, NULL, 0) == inner);
	return verdict();
}
