/*
 * Executes itself again and again, with threads that have to die for it each time.  The file "beat" has the count.
 * With LEADERLESS it is another thread that does so, while the main thread ends.
 */
#include "selfcheck.h"
#include <pthread.h>
#include <sys/mman.h>

#define THREADS 6

static void *waits(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static char *program;

static void *executes(void *unused)
{
	char *again[] = { program, "again", NULL };

	execv("/proc/thread-self/exe", again);
	MUST(0);
	return unused;
}

int main(int count, char **arguments)
{
	int fd = open("beat", O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	MUST(fd >= 0 && ftruncate(fd, 4096) == 0);
	_Atomic int64_t *beat = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(beat != MAP_FAILED);
	if (count == 1)
		say("ready");
	atomic_fetch_add(beat, 1);
	if (access("go", F_OK) == 0)
		return verdict();
	for (int i = 0; i < THREADS; i++) {
		pthread_t thread;

		MUST(pthread_create(&thread, NULL, waits, NULL) == 0);
	}
	program = arguments[0];
	if (getenv("LEADERLESS") != NULL) {
		pthread_t thread;

		MUST(pthread_create(&thread, NULL, executes, NULL) == 0);
		syscall(SYS_exit, 0);
	}
	executes(NULL);
}
