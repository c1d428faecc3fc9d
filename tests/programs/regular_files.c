/* Files, directories and devices: flags, positions, owners, close-on-exec, numbers far apart. */
#include "selfcheck.h"
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>

static void check_flags(int fd, int flags, int descriptor_flags, long position)
{
	int unseen = 0100000 /* O_LARGEFILE */ | (beyond_criu() ? 0 : O_DIRECTORY);

	CHECK_EQ(fcntl(fd, F_GETFL) & ~unseen, flags & ~unseen);
	CHECK_EQ(fcntl(fd, F_GETFD), descriptor_flags);
	if (position >= 0)
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), position);
}

int main(void)
{
	struct stat status;
	char byte, name[32];
	int reader, writer, appender, path, directory, entries, null, zero, random_source, far, owned, synced;

	MUST((writer = open("data", O_WRONLY | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0640)) >= 0);
	MUST(write(writer, "0123456789", 10) == 10);
	MUST((reader = open("data", O_RDONLY | O_NOATIME)) >= 0 && lseek(reader, 4, SEEK_SET) == 4);
	MUST((appender = open("data", O_RDWR | O_APPEND)) >= 0);
	MUST((path = open("data", O_PATH | O_NOFOLLOW)) >= 0);
	MUST((synced = open("data", O_RDWR | O_SYNC)) >= 0);
	MUST(lseek(synced, 5L << 32, SEEK_SET) == 5L << 32);
	MUST(mkdir("directory", 0755) == 0 && (directory = open("directory", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) >= 0);
	for (int i = 0; i < 5; i++) {
		snprintf(name, sizeof(name), "entry-%d", i);
		MUST((byte = openat(directory, name, O_CREAT | O_WRONLY, 0600)) >= 0 && close(byte) == 0);
	}
	MUST((entries = open("directory", O_RDONLY | O_DIRECTORY)) >= 0);
	char buffer[64];
	long got = syscall(SYS_getdents64, entries, buffer, sizeof(buffer)); /* some of the entries */
	MUST(got > 0);
	off_t at = lseek(entries, 0, SEEK_CUR);
	MUST((null = open("/dev/null", O_RDWR | O_APPEND)) >= 0 && (zero = open("/dev/zero", O_RDONLY)) >= 0);
	MUST((random_source = open("/dev/urandom", O_RDONLY | O_CLOEXEC)) >= 0);
	MUST((far = fcntl(reader, F_DUPFD, 900)) == 900);
	MUST((owned = open("data", O_RDONLY)) >= 0);
	MUST(fcntl(owned, F_SETOWN, getpid()) == 0 && fcntl(owned, F_SETSIG, SIGRTMIN + 2) == 0);

	ready();
	check_flags(writer, O_WRONLY | O_NONBLOCK, FD_CLOEXEC, 10);
	check_flags(reader, O_RDONLY | O_NOATIME, 0, 4);
	check_flags(appender, O_RDWR | O_APPEND, 0, 0);
	check_flags(path, O_PATH | O_NOFOLLOW, 0, -1);
	check_flags(synced, O_RDWR | O_SYNC, 0, 5L << 32);
	check_flags(directory, O_RDONLY | O_DIRECTORY, FD_CLOEXEC, 0);
	check_flags(entries, O_RDONLY | O_DIRECTORY, 0, at);
	check_flags(null, O_RDWR | O_APPEND, 0, -1);
	check_flags(random_source, O_RDONLY, FD_CLOEXEC, -1);
	CHECK(read(reader, &byte, 1) == 1 && byte == '4');
	check_flags(far, O_RDONLY | O_NOATIME, 0, 5);
	CHECK(write(appender, "ab", 2) == 2 && write(writer, "cd", 2) == 2);
	CHECK(pread(reader, &byte, 1, 10) == 1 && byte == 'c');
	CHECK(fstat(path, &status) == 0 && S_ISREG(status.st_mode) && status.st_size == 12);
	CHECK_EQ(read(path, &byte, 1), -1);
	CHECK(fstatat(directory, "entry-3", &status, 0) == 0);
	int left = 0;
	for (; (got = syscall(SYS_getdents64, entries, buffer, sizeof(buffer))) > 0;)
		left++;
	CHECK(left > 0);
	CHECK(read(zero, &byte, 1) == 1 && byte == 0);
	CHECK(read(random_source, buffer, 8) == 8);
	CHECK(write(null, "x", 1) == 1 && read(null, &byte, 1) == 0);
	CHECK_EQ(fcntl(owned, F_GETOWN), getpid());
	CHECK_EQ(fcntl(owned, F_GETSIG), SIGRTMIN + 2);
	for (int fd = 3; fd < 1000; fd++)
		if (fd > owned && fd != 900)
			CHECK_EQ(fcntl(fd, F_GETFD), -1);
	return verdict();
}
