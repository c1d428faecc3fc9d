/*
 * A program whose C library is a file of its own directory, so that a test can upgrade it: it starts itself once more by
 * copies of the loader and of the library.  What it calls afterwards it has not called before.
 */
#include "selfcheck.h"
#include <sys/stat.h>

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

static const char *mapped(const char *part)
{
	static char line[4096];
	FILE *maps = fopen("/proc/self/maps", "r");

	MUST(maps != NULL);
	while (fgets(line, sizeof(line), maps) != NULL)
		if (strstr(line, part) != NULL) {
			fclose(maps);
			line[strcspn(line, "\n")] = 0;
			return strchr(line, '/');
		}
	fclose(maps);
	return NULL;
}

static int descending(const void *one, const void *other)
{
	return *(const int *)other - *(const int *)one;
}

int main(int argc, char **argv)
{
	int numbers[] = { 3, 1, 4, 1, 5, 9, 2, 6 };
	char text[64];

	if (argc == 1) {
		MUST(mkdir("lib", 0755) == 0);
		copy(mapped("libc.so"), "lib/libc.so.6");
		copy(mapped("ld-linux"), "loader");
		copy("/proc/self/exe", "program");
		execl("./loader", "./loader", "--library-path", "lib", "./program", "again", NULL);
		_exit(2);
	}
	MUST(mapped("libc.so") != NULL && strstr(mapped("libc.so"), "/target-") != NULL && argv[1] != NULL);
	ready();
	qsort(numbers, 8, sizeof(int), descending);
	for (int i = 0; i < 8; i++)
		snprintf(text + i, sizeof(text) - i, "%d", numbers[i]);
	CHECK(strcmp(text, "96543211") == 0);
	CHECK_EQ(strtol("-12345", NULL, 10), -12345);
	return verdict();
}
