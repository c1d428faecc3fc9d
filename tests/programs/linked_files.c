/* Files that lost the name they were opened by, and have others: by link and unlink, by O_TMPFILE and linkat, mapped. */
#include "selfcheck.h"
#include <sys/mman.h>
#include <sys/stat.h>

static int same_file(int fd, const char *name)
{
	struct stat one, other;

	return fstat(fd, &one) == 0 && stat(name, &other) == 0 && one.st_ino == other.st_ino && one.st_dev == other.st_dev;
}

int main(void)
{
	char link[64], target[4096] = "", text[16] = "";
	int linked, again, named;

	MUST((linked = open("old name", O_RDWR | O_CREAT, 0640)) >= 0 && write(linked, "0123456789", 10) == 10);
	MUST((again = open("old name", O_RDONLY)) >= 0 && lseek(again, 3, SEEK_SET) == 3);
	char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, linked, 0);
	MUST(mapped != MAP_FAILED && rename("old name", "older name") == 0 && rename("older name", "old name") == 0);
	MUST(linkat(AT_FDCWD, "old name", AT_FDCWD, "new name", 0) == 0 && unlink("old name") == 0);
	MUST((named = open(".", O_RDWR | O_TMPFILE, 0600)) >= 0 && write(named, "was unnamed", 11) == 11);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", named);
	MUST(linkat(AT_FDCWD, link, AT_FDCWD, "named", AT_SYMLINK_FOLLOW) == 0);

	ready();
	CHECK(same_file(linked, "new name") && same_file(again, "new name") && same_file(named, "named"));
	snprintf(link, sizeof(link), "/proc/self/fd/%d", linked);
	CHECK(readlink(link, target, sizeof(target) - 1) > 0 && strstr(target, "/old name (deleted)") != NULL);
	CHECK(access("old name", F_OK) != 0);
	CHECK_EQ(lseek(again, 0, SEEK_CUR), 3);
	mapped[4] = 'x';
	CHECK(pread(again, text, 10, 0) == 10 && strcmp(text, "0123x56789") == 0);
	return verdict();
}
