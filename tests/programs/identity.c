/* Names and switches of a task: comm, oom score, death signal, dumpable, THP, subreaper, slack, umask, cwd, personality. */
#include "selfcheck.h"
#include <pthread.h>
#include <signal.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/stat.h>

static pthread_barrier_t start, finish;
static const char main_name[] = "my) name", thread_name[] = "other\xff\x01\n";

static void check_comm(const char *wanted)
{
	char name[16] = "";

	CHECK(prctl(PR_GET_NAME, name, 0, 0, 0) == 0);
	CHECK(strcmp(name, wanted) == 0);
}

static void *thread(void *unused)
{
	(void)unused;
	MUST(prctl(PR_SET_NAME, thread_name, 0, 0, 0) == 0);
	MUST(prctl(PR_SET_PDEATHSIG, SIGHUP, 0, 0, 0) == 0);
	if (beyond_criu())
		MUST(prctl(PR_SET_TIMERSLACK, 70000, 0, 0, 0) == 0);
	MUST(signal(SIGHUP, SIG_IGN) != SIG_ERR);
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&finish);
	int signal = 0;
	check_comm(thread_name);
	CHECK(prctl(PR_GET_PDEATHSIG, &signal, 0, 0, 0) == 0);
	CHECK_EQ(signal, SIGHUP);
	CHECK_EQ(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), beyond_criu() ? 70000 : 50000);
	return NULL;
}

int main(void)
{
	char cwd[512], now[512];
	int fd, flag = 0, death = 0;
	pthread_t other;

	MUST(pthread_barrier_init(&start, NULL, 2) == 0 && pthread_barrier_init(&finish, NULL, 2) == 0);
	MUST(pthread_create(&other, NULL, thread, NULL) == 0);
	pthread_barrier_wait(&start);
	MUST(prctl(PR_SET_NAME, main_name, 0, 0, 0) == 0);
	MUST((fd = open("/proc/self/oom_score_adj", O_WRONLY)) >= 0 && write(fd, "321", 3) == 3 && close(fd) == 0);
	MUST(prctl(PR_SET_PDEATHSIG, SIGUSR2, 0, 0, 0) == 0 && signal(SIGUSR2, SIG_IGN) != SIG_ERR);
	MUST(prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0);
	MUST(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0);
	MUST(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
	if (beyond_criu()) {
		MUST(prctl(PR_SET_TIMERSLACK, 123456, 0, 0, 0) == 0);
		MUST(personality(ADDR_NO_RANDOMIZE | SHORT_INODE) != -1);
	}
	umask(0153);
	MUST(mkdir("deeper", 0755) == 0 && chdir("deeper") == 0 && getcwd(cwd, sizeof(cwd)) != NULL);

	ready_until("../go");
	pthread_barrier_wait(&finish);
	CHECK_EQ(pthread_join(other, NULL), 0);
	check_comm(main_name);
	const char *score = proc_field("/proc/self/oom_score_adj", "");
	CHECK(score != NULL && atoi(score) == 321);
	CHECK(prctl(PR_GET_PDEATHSIG, &death, 0, 0, 0) == 0);
	CHECK_EQ(death, SIGUSR2);
	CHECK_EQ(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0), 1);
	CHECK(prctl(PR_GET_CHILD_SUBREAPER, &flag, 0, 0, 0) == 0);
	CHECK_EQ(flag, 1);
	CHECK_EQ(prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0), beyond_criu() ? 123456 : 50000);
	CHECK_EQ(personality(0xffffffff), beyond_criu() ? ADDR_NO_RANDOMIZE | SHORT_INODE : 0);
	CHECK_EQ(umask(0), 0153);
	CHECK(getcwd(now, sizeof(now)) != NULL && strcmp(cwd, now) == 0);
	return verdict();
}
