/*
 * A child every millisecond, each of which lives for five and exits with a code of its own.  The root reaps them, each
 * once and with its code; the file "beat" has the count.  With LEADERLESS the main thread of each ends early, and one of
 * two others ends the process.
 */
#include "tree.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#define ALIVE 64

static struct {
	pid_t pid;
	int code;
} alive[ALIVE];

static _Atomic int64_t *beat;

static void *live(void *code)
{
	sleep_ms(5);
	_exit(*(int *)code);
	return NULL;
}

static void leave_others(int *code)
{
	pthread_t threads[2];

	for (int i = 0; i < 2; i++)
		MUST(pthread_create(&threads[i], NULL, live, code) == 0);
	syscall(SYS_exit, 0);
}

/* Reaps who has ended. */
static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		int known = 0;

		for (int i = 0; i < ALIVE; i++)
			if (alive[i].pid == pid) {
				CHECK_EQ(status, alive[i].code << 8);
				alive[i].pid = 0;
				known = 1;
			}
		CHECK(known);
		atomic_fetch_add(beat, known);
	}
	MUST(pid == 0 || errno == ECHILD);
}

int main(void)
{
	int fd = open("beat", O_RDWR | O_CREAT, 0644), code = 0, said = 0;
	int64_t born = 0;

	MUST(fd >= 0 && ftruncate(fd, 4096) == 0);
	beat = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(beat != MAP_FAILED);
	while (access("go", F_OK) != 0 && selfcheck_failures == 0) {
		int free_slot = -1;

		reap();
		for (int i = 0; i < ALIVE; i++)
			if (alive[i].pid == 0)
				free_slot = i;
		if (free_slot >= 0) {
			code = (code + 1) % 100;
			pid_t pid = fork();
			if (pid == 0) {
				if (getenv("LEADERLESS") != NULL)
					leave_others(&code);
				live(&code);
			}
			CHECK(pid > 0);
			alive[free_slot].pid = pid;
			alive[free_slot].code = code;
			born++;
		}
		if (!said && born >= 20) {
			said = 1;
			say("ready");
		}
		sleep_ms(1);
	}
	for (int left = 1000; *beat < born && left > 0; left--) {
		reap();
		sleep_ms(10);
	}
	CHECK_EQ(*beat, born);
	check_no_child();
	return verdict();
}
