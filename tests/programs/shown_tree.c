/* A few tasks that differ in all that `criupy show` and `crit x` tell: sessions, threads, states, tables, memory. */
#include "selfcheck.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define PAGE 4096L

static char stack[65536] __attribute__((aligned(16)));

static void *idle(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void end_with_parent(void)
{
	MUST(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
}

/* A session of its own, with a second thread and a name that is not the program's. */
static void leader(void)
{
	pthread_t thread;

	end_with_parent();
	MUST(setsid() == getpid() && prctl(PR_SET_NAME, "leader") == 0);
	MUST(pthread_create(&thread, NULL, idle, NULL) == 0);
	idle(NULL);
}

static int stopped(void *unused)
{
	end_with_parent();
	raise(SIGSTOP);
	idle(NULL);
	return unused != NULL;
}

static void memory(void)
{
	const int rw = PROT_READ | PROT_WRITE;
	char *shared = mmap(NULL, 4 * PAGE, rw, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int file = open("mapped", O_RDWR | O_CREAT, 0600), secret = memfd_create("secret", 0);

	MUST(shared != MAP_FAILED && file >= 0 && secret >= 0);
	MUST(ftruncate(file, 8 * PAGE) == 0 && ftruncate(secret, 2 * PAGE) == 0);
	char *written = mmap(NULL, 8 * PAGE, rw, MAP_PRIVATE, file, 0);
	char *visible = mmap(NULL, 4 * PAGE, rw, MAP_SHARED, file, 4 * PAGE);
	char *hidden = mmap(NULL, 2 * PAGE, rw, MAP_SHARED, secret, 0);
	MUST(written != MAP_FAILED && visible != MAP_FAILED && hidden != MAP_FAILED);
	shared[PAGE] = written[3 * PAGE] = written[5 * PAGE] = visible[0] = hidden[PAGE] = 1;
}

int main(void)
{
	int ends[2], pair[2];

	MUST(pipe(ends) == 0 && write(ends[1], "content", 7) == 7);
	MUST(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && eventfd(3, EFD_NONBLOCK) >= 0);
	memory();
	pid_t first = fork();
	if (first == 0)
		leader();
	pid_t second = clone(stopped, stack + sizeof(stack), CLONE_FILES | SIGCHLD, NULL);
	pid_t third = fork();
	if (third == 0)
		_exit(7);
	int status;
	siginfo_t ended;
	MUST(first > 0 && second > 0 && third > 0);
	MUST(waitpid(second, &status, WUNTRACED) == second && WIFSTOPPED(status));
	MUST(waitid(P_PID, third, &ended, WEXITED | WNOWAIT) == 0);
	for (char name[16] = ""; strcmp(name, "leader\n") != 0;) {
		char path[64];
		snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", first, first);
		int comm = open(path, O_RDONLY);
		MUST(comm >= 0);
		ssize_t length = read(comm, name, sizeof(name) - 1);
		name[length > 0 ? length : 0] = 0;
		close(comm);
	}
	say("ready");
	idle(NULL);
}
