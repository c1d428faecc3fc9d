/* Files that have no name any more: open, mapped, stood in, and shared; content, holes, owners, times and positions. */
#include "selfcheck.h"
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define PAGE 4096
#define FAR (300 * 1024)

static char home[4096];

static void check_link(const char *of, const char *name)
{
	char link[64], target[4096], expected[4096 + 32];

	snprintf(link, sizeof(link), "/proc/self/%s", of);
	ssize_t size = readlink(link, target, sizeof(target) - 1);
	CHECK(size > 0);
	target[size > 0 ? size : 0] = 0;
	snprintf(expected, sizeof(expected), "%s%s (deleted)", name[0] == '/' ? "" : home, name);
	if (strcmp(target, expected) != 0) {
		CHECK(!"the name is as it was");
		say("%s is %s, not %s", link, target, expected);
	}
}

static void check_fd(int fd, const char *name)
{
	char of[32];
	struct stat status;

	snprintf(of, sizeof(of), "fd/%d", fd);
	check_link(of, name);
	CHECK(fstat(fd, &status) == 0);
	CHECK_EQ(status.st_nlink, 0);
}

int main(void)
{
	struct stat before, status;
	struct timespec times[2] = { { 1234567890, 123456000 }, { 987654321, 654321000 } };
	char byte, text[16];
	int whole, again, path, sparse, mapped, fifo, nested, taken, null, unnamed, shm, huge_name = -1, device = -1, link_itself = -1;

	MUST(getcwd(home, sizeof(home) - 1) != NULL && strcat(home, "/") != NULL);
	MUST((whole = open("whole", O_RDWR | O_CREAT | O_APPEND, 0640)) >= 0 && write(whole, "0123456789", 10) == 10);
	MUST(fchown(whole, 12, 34) == 0 && fchmod(whole, 04751) == 0);
	MUST((again = open("whole", O_RDONLY)) >= 0 && lseek(again, 4, SEEK_SET) == 4);
	MUST((path = open("whole", O_PATH)) >= 0 && futimens(whole, times) == 0);
	MUST(unlink("whole") == 0 && fstat(whole, &before) == 0);

	MUST((sparse = open("sparse", O_RDWR | O_CREAT, 0600)) >= 0 && unlink("sparse") == 0);
	MUST(pwrite(sparse, "begin", 5, 0) == 5 && pwrite(sparse, "end", 3, FAR) == 3);
	MUST(ftruncate(sparse, 2 * FAR) == 0);

	/* Mapped for both ways by two who write, and privately; the descriptor of one is closed. */
	MUST((mapped = open("mapped", O_RDWR | O_CREAT, 0600)) >= 0 && ftruncate(mapped, 3 * PAGE) == 0);
	char *shared = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, PAGE);
	char *private = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, mapped, 0);
	MUST(shared != MAP_FAILED && private != MAP_FAILED && unlink("mapped") == 0);
	strcpy(shared, "shared");
	strcpy(private, "my own");
	MUST((shm = open("/dev/shm/selfcheck", O_RDWR | O_CREAT | O_TRUNC, 0600)) >= 0 && ftruncate(shm, PAGE) == 0);
	char *semaphore = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, shm, 0);
	MUST(semaphore != MAP_FAILED && unlink("/dev/shm/selfcheck") == 0 && close(shm) == 0);
	strcpy(semaphore, "semaphore");

	MUST(mkfifo("fifo", 0600) == 0 && (fifo = open("fifo", O_RDWR | O_NONBLOCK)) >= 0 && unlink("fifo") == 0);
	MUST(write(fifo, "in the fifo", 11) == 11);
	MUST((taken = open("taken", O_RDWR | O_CREAT, 0600)) >= 0 && write(taken, "old", 3) == 3 && unlink("taken") == 0);
	MUST((null = open("taken", O_RDWR | O_CREAT, 0600)) >= 0 && write(null, "new file", 8) == 8 && close(null) == 0);
	MUST((unnamed = open(".", O_RDWR | O_TMPFILE, 0600)) >= 0 && write(unnamed, "unnamed", 7) == 7);
	memset(text, 0, sizeof(text));
	char longest[250];
	memset(longest, 'n', sizeof(longest));
	longest[249] = 0;
	if (beyond_criu())
		MUST((huge_name = open(longest, O_RDWR | O_CREAT, 0600)) >= 0 && unlink(longest) == 0);

	if (beyond_criu()) {
		MUST(mknod("null", S_IFCHR | 0600, makedev(1, 3)) == 0 && (device = open("null", O_RDWR)) >= 0);
		MUST(unlink("null") == 0 && symlink("nowhere", "link") == 0);
		MUST((link_itself = open("link", O_PATH | O_NOFOLLOW | O_CLOEXEC)) >= 0 && unlink("link") == 0);
	}
	MUST(mkdir("gone", 0700) == 0);
	MUST(beyond_criu() ? mkdir("gone/below", 0711) == 0 && chdir("gone/below") == 0 : chdir("gone") == 0);
	MUST((nested = open("nested", O_RDWR | O_CREAT, 0600)) >= 0 && unlink("nested") == 0);
	MUST((!beyond_criu() || rmdir("../below") == 0) && unlinkat(AT_FDCWD, "../gone", 0) != 0);
	char gone[4096 + 16];
	snprintf(gone, sizeof(gone), "%sgone", home);
	MUST(rmdir(gone) == 0);

	char go[4096 + 16];
	snprintf(go, sizeof(go), "%sgo", home);
	ready_until(go);

	check_fd(whole, "whole");
	check_fd(again, "whole");
	check_fd(path, "whole");
	CHECK(fstat(whole, &status) == 0);
	CHECK_EQ(status.st_uid, 12);
	CHECK_EQ(status.st_gid, 34);
	CHECK_EQ(status.st_mode, 0104751);
	CHECK_EQ(status.st_mtim.tv_sec, 987654321);
	CHECK_EQ(status.st_mtim.tv_nsec, 654321000);
	CHECK_EQ(lseek(again, 0, SEEK_CUR), 4);
	CHECK_EQ(fcntl(whole, F_GETFL) & O_APPEND, O_APPEND);
	CHECK(write(whole, "ab", 2) == 2 && pread(again, text, 12, 0) == 12 && strcmp(text, "0123456789ab") == 0);

	check_fd(sparse, "sparse");
	CHECK(fstat(sparse, &status) == 0);
	CHECK_EQ(status.st_size, 2 * FAR);
	CHECK(status.st_blocks * 512 < FAR);
	CHECK(pread(sparse, text, 5, 0) == 5 && memcmp(text, "begin", 5) == 0);
	CHECK(pread(sparse, text, 4, FAR) == 4 && memcmp(text, "end", 4) == 0);

	check_fd(mapped, "mapped");
	CHECK(strcmp(shared, "shared") == 0 && strcmp(private, "my own") == 0);
	CHECK(pread(mapped, text, 7, PAGE) == 7 && strcmp(text, "shared") == 0);
	strcpy(shared + PAGE, "both ways");
	CHECK(pread(mapped, text, 10, 2 * PAGE) == 10 && strcmp(text, "both ways") == 0);
	CHECK(strcmp(private + 2 * PAGE, "both ways") == 0);
	CHECK(strcmp(semaphore, "semaphore") == 0);

	check_fd(fifo, "fifo");
	CHECK(read(fifo, text, 11) == 11 && memcmp(text, "in the fifo", 11) == 0);
	CHECK(fstat(taken, &status) == 0);
	CHECK_EQ(status.st_nlink, 0);
	CHECK(pread(taken, text, 4, 0) == 3 && memcmp(text, "old", 3) == 0);
	CHECK(fstat(unnamed, &status) == 0);
	CHECK_EQ(status.st_nlink, 0);
	CHECK(pread(unnamed, text, 8, 0) == 7 && memcmp(text, "unnamed", 7) == 0);
	if (beyond_criu()) { /* it can still be given a name, as nothing else without one */
		char link[64], name[4096 + 16];

		snprintf(link, sizeof(link), "/proc/self/fd/%d", unnamed);
		snprintf(name, sizeof(name), "%snamed at last", home);
		CHECK(linkat(AT_FDCWD, link, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0);
		check_fd(huge_name, longest);
		check_fd(device, "null");
		CHECK(read(device, text, 1) == 0 && write(device, "away", 4) == 4);
		check_fd(link_itself, "link");
		memset(text, 0, sizeof(text));
		CHECK(readlinkat(link_itself, "", text, sizeof(text)) == 7 && strcmp(text, "nowhere") == 0);
		CHECK_EQ(fcntl(link_itself, F_GETFD), FD_CLOEXEC);
	}

	check_link("cwd", beyond_criu() ? "gone/below" : "gone");
	check_fd(nested, beyond_criu() ? "gone/below/nested" : "gone/nested");
	CHECK(open("anything", O_CREAT | O_RDWR, 0600) < 0 && errno == ENOENT);
	CHECK(chdir(home) == 0 && access("whole", F_OK) != 0 && access("gone", F_OK) != 0 && access("fifo", F_OK) != 0);
	CHECK((null = open("taken", O_RDONLY)) >= 0 && read(null, &byte, 1) == 1 && byte == 'n');
	return verdict();
}
