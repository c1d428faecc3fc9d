/* A System V segment that would outlive its program, with a word in it that is said in the end: "found: dumped". */
#include "selfcheck.h"
#include <sys/shm.h>

int main(void)
{
	int key = 0x44000000 | getpid(), id = shmget(key, 8192, IPC_CREAT | IPC_EXCL | 0600);
	FILE *list = fopen("sysv", "w");
	struct shmid_ds facts;
	char *word;

	if (id < 0)
		unsupported("shmget");
	MUST(list != NULL && fprintf(list, "shm %d\n", id) > 0 && fclose(list) == 0);
	MUST((word = shmat(id, NULL, 0)) != (void *)-1);
	strcpy(word, "dumped");
	ready();
	CHECK_EQ(shmget(key, 0, 0), id);
	CHECK(shmctl(id, IPC_STAT, &facts) == 0 && (facts.shm_perm.mode & 07777) == 0600);
	say("found: %s, attached %d times", word, (int)facts.shm_nattch);
	return verdict();
}
