/* Ids, groups, capability sets (ambient too), securebits and no_new_privs, different in two threads. */
#include "selfcheck.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>

#define BIT(capability) (1ULL << (capability))

struct capabilities { uint64_t effective, permitted, inheritable; };

static struct capabilities capabilities(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { 0 };

	CHECK(syscall(SYS_capget, &header, data) == 0);
	return (struct capabilities){ data[0].effective | (uint64_t)data[1].effective << 32,
				      data[0].permitted | (uint64_t)data[1].permitted << 32,
				      data[0].inheritable | (uint64_t)data[1].inheritable << 32 };
}

static void set_capabilities(struct capabilities wanted)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = {
		{ wanted.effective, wanted.permitted, wanted.inheritable },
		{ wanted.effective >> 32, wanted.permitted >> 32, wanted.inheritable >> 32 } };

	MUST(syscall(SYS_capset, &header, data) == 0);
}

static const struct capabilities wanted = { BIT(CAP_NET_RAW) | BIT(CAP_KILL),
					    BIT(CAP_NET_RAW) | BIT(CAP_KILL) | BIT(CAP_CHOWN),
					    BIT(CAP_KILL) };
static pthread_barrier_t start, finish;

static void *thread(void *unused)
{
	(void)unused;
	MUST(syscall(SYS_setresuid, 0, 1234, 0) == 0);
	pthread_barrier_wait(&start);
	pthread_barrier_wait(&finish);
	uid_t real, effective, saved;
	CHECK(getresuid(&real, &effective, &saved) == 0);
	CHECK_EQ(real, 0);
	CHECK_EQ(effective, 1234);
	CHECK_EQ(saved, 0);
	CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	return NULL;
}

int main(void)
{
	gid_t groups[] = { 5, 77, 65534, 100000 }, got[16];
	uid_t real, effective, saved;
	pthread_t other;
	int different_threads = getenv("THREADS") != NULL;

	MUST(setgroups(4, groups) == 0);
	MUST(pthread_barrier_init(&start, NULL, 2) == 0 && pthread_barrier_init(&finish, NULL, 2) == 0);
	if (different_threads) {
		MUST(pthread_create(&other, NULL, thread, NULL) == 0);
		pthread_barrier_wait(&start);
	}
	MUST(prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0) == 0);
	MUST(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT) == 0);
	/* Asking for the limits of another user's task takes CAP_SYS_RESOURCE, and criu asks. */
	const uid_t ids[3] = { beyond_criu() ? 2001 : 0, beyond_criu() ? 2002 : 0, beyond_criu() ? 2003 : 0 };
	const gid_t gids[3] = { beyond_criu() ? 1001 : 0, beyond_criu() ? 1002 : 0, beyond_criu() ? 1003 : 0 };
	MUST(syscall(SYS_setresgid, gids[0], gids[1], gids[2]) == 0);
	MUST(syscall(SYS_setresuid, ids[0], ids[1], ids[2]) == 0);
	setfsuid(ids[2]);
	set_capabilities(wanted);
	MUST(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0);
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);

	ready();
	if (different_threads) {
		pthread_barrier_wait(&finish);
		CHECK_EQ(pthread_join(other, NULL), 0);
	}
	CHECK(getresuid(&real, &effective, &saved) == 0);
	CHECK_EQ(real, ids[0]);
	CHECK_EQ(effective, ids[1]);
	CHECK_EQ(saved, ids[2]);
	CHECK_EQ(setfsuid(-1), ids[2]);
	CHECK(getresgid(&real, &effective, &saved) == 0);
	CHECK_EQ(real, gids[0]);
	CHECK_EQ(effective, gids[1]);
	CHECK_EQ(saved, gids[2]);
	CHECK_EQ(getgroups(16, got), 4);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(got[i], groups[i]);
	struct capabilities now = capabilities();
	CHECK_EQ(now.effective, wanted.effective);
	CHECK_EQ(now.permitted, wanted.permitted);
	CHECK_EQ(now.inheritable, wanted.inheritable);
	CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_SYS_TIME, 0, 0, 0), 0);
	CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN, 0, 0, 0), 1);
	CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0), 1);
	CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW, 0, 0), 0);
	CHECK_EQ(prctl(PR_GET_SECUREBITS), SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP | SECBIT_NOROOT);
	CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	return verdict();
}
