/*
 * System V shared memory: a segment with a key that was made by another user than it belongs to, attached in every way
 * and taken apart; one that is locked and marked for destruction; with HUGE one of huge pages.
 */
#include "selfcheck.h"
#include <sys/mman.h>
#include <sys/shm.h>

#define PAGE 4096L
#define HUGE_PAGE (2L << 20)

static FILE *list;

static int made(int id)
{
	if (id < 0)
		unsupported("shmget");
	MUST(fprintf(list, "shm %d\n", id) > 0 && fflush(list) == 0);
	return id;
}

static char *attached(int id, int flags)
{
	char *at = shmat(id, NULL, flags);

	MUST(at != (void *)-1);
	return at;
}

/* The lines of maps that are attachments. */
static void read_attachments(char *text, size_t size)
{
	static char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");

	MUST(maps != NULL);
	text[0] = 0;
	while (fgets(line, sizeof(line), maps) != NULL)
		if (strstr(line, "/SYSV") != NULL)
			strncat(text, line, size - strlen(text) - 1);
	fclose(maps);
}

static void fill(char *at, long page)
{
	for (long i = 0; i < PAGE / 8; i++)
		((uint64_t *)(at + page * PAGE))[i] = (page * 512 + i + 1) * 0x9e3779b97f4a7c15ULL;
}

static int holds(const char *at, long page)
{
	for (long i = 0; i < PAGE / 8; i++)
		if (((const uint64_t *)at)[i] != (page * 512 + i + 1) * 0x9e3779b97f4a7c15ULL)
			return 0;
	return 1;
}

static int has_hole(char *at, long pages, long page)
{
	char name[96];

	snprintf(name, sizeof(name), "/proc/self/map_files/%lx-%lx", (long)at, (long)at + pages * PAGE);
	int fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	int answer = lseek(fd, page * PAGE, SEEK_HOLE) == page * PAGE && lseek(fd, page * PAGE, SEEK_DATA) == (page + 1) * PAGE;
	close(fd);
	return answer;
}

static void check_same(int id, const struct shmid_ds *was)
{
	struct shmid_ds is;

	CHECK(shmctl(id, IPC_STAT, &is) == 0);
	CHECK_EQ(is.shm_perm.__key, was->shm_perm.__key);
	CHECK_EQ(is.shm_perm.uid, was->shm_perm.uid);
	CHECK_EQ(is.shm_perm.gid, was->shm_perm.gid);
	CHECK_EQ(is.shm_perm.cuid, was->shm_perm.cuid);
	CHECK_EQ(is.shm_perm.cgid, was->shm_perm.cgid);
	CHECK_EQ(is.shm_perm.mode, was->shm_perm.mode);
	CHECK_EQ(is.shm_segsz, was->shm_segsz);
	CHECK_EQ(is.shm_nattch, was->shm_nattch);
}

int main(void)
{
	static char before[16384], after[16384];
	struct shmid_ds facts, plain_was, marked_was, huge_was;
	char *huge = NULL, *moved, *between;
	int huge_id = -1, key = 0x43000000 | getpid();

	MUST((list = fopen("sysv", "w")) != NULL);
	MUST(setresgid(-1, 1003, -1) == 0 && setresuid(-1, 1002, -1) == 0);
	int plain = made(shmget(key, 5 * PAGE - 100, IPC_CREAT | IPC_EXCL | 0640));
	MUST(setresuid(-1, 0, -1) == 0 && setresgid(-1, 0, -1) == 0);
	MUST(shmctl(plain, IPC_STAT, &facts) == 0);
	facts.shm_perm.uid = 1000, facts.shm_perm.gid = 1001, facts.shm_perm.mode = 0604;
	MUST(shmctl(plain, IPC_SET, &facts) == 0);

	char *whole = attached(plain, 0), *constant = attached(plain, SHM_RDONLY), *code = attached(plain, SHM_EXEC);
	char *apart = attached(plain, 0), *split = attached(plain, 0);
	fill(whole, 0), fill(whole, 1), fill(whole, 3), fill(whole, 4);
	MUST(mprotect(apart, PAGE, PROT_NONE) == 0 && mprotect(apart + PAGE, PAGE, PROT_READ) == 0);
	MUST((moved = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED);
	MUST(mremap(apart + 4 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved) == moved);
	between = mmap(apart + 3 * PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	MUST(between == apart + 3 * PAGE);
	strcpy(between, "between");
	MUST(mprotect(split + PAGE, PAGE, PROT_READ) == 0 && mprotect(split + PAGE, PAGE, PROT_READ | PROT_WRITE) == 0);

	int marked = made(shmget(IPC_PRIVATE, 3 * PAGE, IPC_CREAT | 0600));
	char *doomed = attached(marked, 0);
	fill(doomed, 1);
	MUST(shmctl(marked, SHM_LOCK, NULL) == 0 && shmctl(marked, IPC_RMID, NULL) == 0);

	if (getenv("HUGE") != NULL) {
		huge_id = made(shmget(IPC_PRIVATE, HUGE_PAGE + PAGE, IPC_CREAT | SHM_HUGETLB | 0600));
		huge = attached(huge_id, 0);
		fill(huge, 3), fill(huge, 515);
		MUST(mprotect(huge + HUGE_PAGE, HUGE_PAGE, PROT_READ) == 0);
		MUST(shmctl(huge_id, IPC_STAT, &huge_was) == 0);
	}
	MUST(shmctl(plain, IPC_STAT, &plain_was) == 0 && plain_was.shm_nattch == 10);
	MUST(shmctl(marked, IPC_STAT, &marked_was) == 0 && (marked_was.shm_perm.mode & 07000) == (SHM_DEST | SHM_LOCKED));
	read_attachments(before, sizeof(before));

	ready();
	CHECK(has_hole(doomed, 3, 0));
	CHECK(holds(whole, 0) && holds(whole + PAGE, 1) && holds(whole + 3 * PAGE, 3) && holds(moved, 4));
	CHECK(strcmp(between, "between") == 0);
	CHECK(holds(doomed + PAGE, 1) && doomed[0] == 0);
	read_attachments(after, sizeof(after));
	CHECK(strcmp(before, after) == 0);
	check_same(plain, &plain_was);
	check_same(marked, &marked_was);
	CHECK_EQ(shmget(key, 0, 0), plain);

	strcpy(whole + 2 * PAGE, "written");
	CHECK(strcmp(constant + 2 * PAGE, "written") == 0 && strcmp(code + 2 * PAGE, "written") == 0);
	CHECK(strcmp(apart + 2 * PAGE, "written") == 0 && strcmp(split + 2 * PAGE, "written") == 0);
	CHECK(mprotect(constant, PAGE, PROT_READ | PROT_WRITE) == -1);
	if (huge != NULL) {
		CHECK(holds(huge + 3 * PAGE, 3) && holds(huge + 515 * PAGE, 515));
		check_same(huge_id, &huge_was);
		CHECK(shmctl(huge_id, IPC_RMID, NULL) == 0);
	}
	CHECK(shmdt(constant) == 0 && shmdt(doomed) == 0);
	CHECK_EQ(shmctl(marked, IPC_STAT, &facts), -1);
	CHECK(shmctl(plain, IPC_STAT, &facts) == 0);
	CHECK_EQ(facts.shm_nattch, 9);
	CHECK(shmctl(plain, IPC_RMID, NULL) == 0);
	return verdict();
}
