/*
 * Deleted files that processes share: an open file description with its position, further ones of the same file, a
 * mapping, a FIFO with what is in it, the directory that both stand in; and two deleted files that had the same name.
 */
#include "tree.h"
#include <sys/mman.h>
#include <sys/stat.h>

static int shared, own, fifo;
static char *memory;

static ino_t inode(int fd)
{
	struct stat status;

	CHECK(fstat(fd, &status) == 0);
	CHECK_EQ(status.st_nlink, 0);
	return status.st_ino;
}

static const char *where(void)
{
	static char place[4200];
	ssize_t size = readlink("/proc/self/cwd", place, sizeof(place) - 1);

	CHECK(size > 0);
	place[size > 0 ? size : 0] = 0;
	return place;
}

static void heir(void)
{
	char text[16] = "";
	int other = open("/proc/self/fd/0", O_RDONLY); /* another number than the root has */

	MUST(other >= 0);
	is_set_up();
	until("positions");
	CHECK(read(shared, text, 3) == 3 && strcmp(text, "345") == 0);
	CHECK_EQ(inode(shared), inode(own));
	CHECK(pwrite(own, "X", 1, 0) == 1);
	CHECK(strcmp(memory, "of both") == 0);
	strcpy(memory, "of the child");
	CHECK(read(fifo, text, 8) == 8 && memcmp(text, "for both", 8) == 0);
	CHECK(strstr(where(), "/gone (deleted)") != NULL);
	did("positions");
	exit(verdict());
}

int main(void)
{
	char text[16] = "";
	int status, first, second;

	tree_begins();
	MUST(mkdir("gone", 0700) == 0 && chdir("gone") == 0);
	MUST((shared = open("shared", O_RDWR | O_CREAT, 0600)) >= 0 && write(shared, "0123456789", 10) == 10);
	MUST(lseek(shared, 3, SEEK_SET) == 3 && (own = open("shared", O_RDWR)) >= 0 && ftruncate(own, 8192) == 0);
	memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, own, 4096);
	MUST(memory != MAP_FAILED);
	strcpy(memory, "of both");
	MUST(mkfifo("fifo", 0600) == 0 && (fifo = open("fifo", O_RDWR | O_NONBLOCK)) >= 0);
	MUST(write(fifo, "for both", 8) == 8 && unlink("fifo") == 0 && unlink("shared") == 0);
	MUST((first = open("twice", O_RDWR | O_CREAT, 0600)) >= 0 && write(first, "first", 5) == 5);
	MUST(unlink("twice") == 0 && (second = open("twice", O_RDWR | O_CREAT, 0600)) >= 0);
	MUST(write(second, "second", 6) == 6 && unlink("twice") == 0);
	MUST(rmdir("../gone") == 0);

	pid_t pid = fork();
	MUST(pid >= 0);
	if (pid == 0)
		heir();
	wait_set_up(1);
	ready_until(step_file("go", ""));

	announce("positions");
	until("positions-done");
	CHECK_EQ(lseek(shared, 0, SEEK_CUR), 6);
	CHECK(pread(own, text, 10, 0) == 10 && strcmp(text, "X123456789") == 0);
	CHECK(strcmp(memory, "of the child") == 0);
	CHECK(read(fifo, text, 1) < 0 && errno == EAGAIN);
	CHECK(strstr(where(), "/gone (deleted)") != NULL);
	CHECK(inode(first) != inode(second));
	CHECK(pread(first, text, 6, 0) == 5 && memcmp(text, "first", 5) == 0);
	CHECK(pread(second, text, 6, 0) == 6 && memcmp(text, "second", 6) == 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
	return verdict();
}
