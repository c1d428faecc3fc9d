/* A task that has given everything up for good: no capability left to have, and locked securebits. */
#include "selfcheck.h"
#include <grp.h>
#include <linux/securebits.h>
#include <sys/prctl.h>

#define LAST_CAPABILITY 63

int main(void)
{
	gid_t group = 1;

	MUST(prctl(PR_SET_SECUREBITS, SECURE_ALL_BITS | SECURE_ALL_LOCKS) == 0 ||
	     prctl(PR_SET_SECUREBITS, (SECURE_ALL_BITS | SECURE_ALL_LOCKS) & 0xff) == 0);
	int securebits = prctl(PR_GET_SECUREBITS);

	MUST(setgroups(1, &group) == 0);
	for (int i = 0; i <= LAST_CAPABILITY; i++)
		prctl(PR_CAPBSET_DROP, i);
	MUST(setresgid(33, 33, 33) == 0 && setresuid(33, 33, 33) == 0);
	ready();
	CHECK_EQ(prctl(PR_GET_SECUREBITS), securebits);
	CHECK_EQ(getuid(), 33);
	CHECK_EQ(getgroups(1, &group), 1);
	CHECK_EQ(group, 1);
	for (int i = 0; i <= LAST_CAPABILITY; i++)
		CHECK(prctl(PR_CAPBSET_READ, i) <= 0);
	return verdict();
}
