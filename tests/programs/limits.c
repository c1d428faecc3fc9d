/* Resource limits, soft and hard, infinite ones among them. */
#include "selfcheck.h"
#include <sys/resource.h>

static const struct { int resource; struct rlimit limit; } wanted[] = {
	{ RLIMIT_CORE, { 4096, 123456 } },
	{ RLIMIT_FSIZE, { 1 << 20, 1 << 30 } },
	{ RLIMIT_NOFILE, { 64, 200 } },
	{ RLIMIT_STACK, { 3 << 20, 64 << 20 } },
	{ RLIMIT_CPU, { 5000, RLIM_INFINITY } },
	{ RLIMIT_NICE, { 0, 0 } },
	{ RLIMIT_MSGQUEUE, { 1000, 2000 } },
	{ RLIMIT_AS, { 1L << 40, 1L << 41 } },
	{ RLIMIT_SIGPENDING, { 17, 900 } },
};

int main(void)
{
	struct rlimit now;

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++)
		MUST(setrlimit(wanted[i].resource, &wanted[i].limit) == 0);
	ready();
	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		CHECK(getrlimit(wanted[i].resource, &now) == 0);
		CHECK_EQ(now.rlim_cur, wanted[i].limit.rlim_cur);
		CHECK_EQ(now.rlim_max, wanted[i].limit.rlim_max);
	}
	return verdict();
}
