/* Waits for a vfork child that takes as many milliseconds as the argument says; then as usual. */
#include "selfcheck.h"
#include <sys/wait.h>

int main(int count, char **arguments)
{
	long milliseconds = count > 1 ? atol(arguments[1]) : 0;
	int status;

	say("ready");
	pid_t child = vfork();
	if (child == 0) {
		struct timespec time = { milliseconds / 1000, milliseconds % 1000 * 1000000 };
		nanosleep(&time, NULL);
		_exit(7);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	ready();
	return verdict();
}
