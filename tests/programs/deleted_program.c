/* A program that was deleted while it runs, as an upgrade does it, with a library that was replaced. */
#include "selfcheck.h"
#include <sys/mman.h>
#include <sys/stat.h>

static int counted = 42; /* in a private page of the file */

static void copy(const char *from, const char *to)
{
	char buffer[65536];
	ssize_t size;
	int source = open(from, O_RDONLY), target = open(to, O_WRONLY | O_CREAT | O_EXCL, 0755);

	MUST(source >= 0 && target >= 0);
	while ((size = read(source, buffer, sizeof(buffer))) > 0)
		MUST(write(target, buffer, size) == size);
	MUST(size == 0 && close(source) == 0 && close(target) == 0);
}

int main(int argc, char **argv)
{
	char target[4096] = "";
	struct stat status;
	int fd;

	if (argc == 1) {
		copy("/proc/self/exe", "program");
		copy("/proc/self/exe", "library");
		execl("./program", argv[0], "itself", NULL);
		_exit(2);
	}
	MUST((fd = open("library", O_RDONLY)) >= 0 && fstat(fd, &status) == 0);
	char *code = mmap(NULL, status.st_size, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	MUST(code != MAP_FAILED && close(fd) == 0);
	counted++;
	MUST(unlink("program") == 0);
	MUST((fd = open("new", O_WRONLY | O_CREAT, 0755)) >= 0 && write(fd, "another library", 15) == 15 && close(fd) == 0);
	MUST(rename("new", "library") == 0);

	ready();
	CHECK_EQ(counted, 43);
	CHECK(memcmp(code, "\177ELF", 4) == 0 && code[status.st_size - 1] == 0);
	CHECK(readlink("/proc/self/exe", target, sizeof(target) - 1) > 0);
	CHECK(strstr(target, "/program (deleted)") != NULL);
	CHECK(access("program", F_OK) != 0);
	CHECK((fd = open("library", O_RDONLY)) >= 0 && fstat(fd, &status) == 0);
	CHECK_EQ(status.st_size, 15);
	return verdict();
}
