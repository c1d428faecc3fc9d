/* A root directory and a cwd of its own. */
#include "selfcheck.h"
#include <sys/stat.h>

int main(void)
{
	char cwd[512];

	MUST(mkdir("inner", 0755) == 0);
	MUST(chroot(".") == 0 && chdir("/inner") == 0);
	ready_until("/go");
	CHECK(getcwd(cwd, sizeof(cwd)) != NULL && strcmp(cwd, "/inner") == 0);
	CHECK(access("/log", F_OK) == 0);
	CHECK(access("/proc/self", F_OK) != 0);
	CHECK(access("../../../../log", F_OK) == 0);
	return verdict();
}
