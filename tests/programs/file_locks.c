/*
 * Locks of files: POSIX, flock, of open file descriptions, leases; and a child that waits for one, with one of its own.
 * Beyond criu: the file that is locked is mapped too, and a POSIX lock goes with the first descriptor that is closed; what
 * is leased has content, and whoever looks into it breaks the lease.
 */
#include "tree.h"
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>

static pid_t root;
static int file, child_file;

static struct flock lock_of(int type, off_t start, off_t length)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length };
}

/* Who would be in the way of a lock for writing, as somebody else sees it: 0 is nobody, -1 an open file. */
static pid_t holder(off_t start, off_t length)
{
	struct flock lock = lock_of(F_WRLCK, start, length);

	CHECK(fcntl(child_file, F_GETLK, &lock) == 0);
	return lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

static void wait_for_lock(void)
{
	struct flock waited = lock_of(F_WRLCK, 100, 10), own = lock_of(F_WRLCK, 500, 1);
	struct flock read_lock = lock_of(F_RDLCK, 0, 10);

	MUST((child_file = open("data", O_RDWR)) >= 0);
	MUST(fcntl(child_file, F_SETLK, &own) == 0);
	is_set_up();
	CHECK(fcntl(child_file, F_SETLKW, &waited) == 0); /* until the root gives it up */
	CHECK(access(step_file("given up", ""), F_OK) == 0);
	CHECK_EQ(holder(0, 10), root);
	CHECK(fcntl(child_file, F_SETLK, &read_lock) == 0);
	CHECK_EQ(holder(20, 0), beyond_criu() ? -1 : 0);
	exit(verdict());
}

int main(void)
{
	struct flock shared = lock_of(F_RDLCK, 0, 10), whole = lock_of(F_WRLCK, 100, 10);
	struct flock owned = lock_of(F_WRLCK, 1000, 0);
	int again, flocked, duplicate, leased, status;

	root = getpid();
	tree_begins();
	MUST((file = open("data", O_RDWR | O_CREAT | O_TRUNC, 0600)) >= 0 && ftruncate(file, 4096) == 0);
	MUST((again = open("data", O_RDONLY)) >= 0);
	if (beyond_criu())
		MUST(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) != MAP_FAILED);
	MUST(fcntl(file, F_SETLK, &shared) == 0 && fcntl(file, F_SETLK, &whole) == 0);
	if (beyond_criu())
		MUST(fcntl(file, F_OFD_SETLK, &owned) == 0);
	MUST((flocked = open("flocked", O_RDWR | O_CREAT, 0600)) >= 0 && flock(flocked, LOCK_EX) == 0);
	MUST((duplicate = dup(flocked)) >= 0);
	MUST(signal(SIGIO, SIG_IGN) != SIG_ERR);
	MUST((leased = open("leased", O_RDWR | O_CREAT | O_CLOEXEC, 0600)) >= 0);
	MUST(!beyond_criu() || write(leased, "a lease", 7) == 7);

	pid_t waiting = fork();
	MUST(waiting >= 0);
	if (waiting == 0) {
		MUST(close(leased) == 0);
		wait_for_lock();
	}
	wait_set_up(1);
	MUST(fcntl(leased, F_SETLEASE, F_WRLCK) == 0);
	ready();

	CHECK_EQ(waitpid(waiting, &status, WNOHANG), 0);
	CHECK_EQ(fcntl(leased, F_GETLEASE), F_WRLCK);
	CHECK(fcntl(leased, F_SETLEASE, F_UNLCK) == 0);
	struct flock of_child = lock_of(F_WRLCK, 500, 1);
	CHECK(fcntl(file, F_GETLK, &of_child) == 0 && of_child.l_type == F_WRLCK && of_child.l_pid == waiting);
	int other = open("flocked", O_RDONLY);
	CHECK(flock(other, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	CHECK(close(duplicate) == 0);
	CHECK(flock(other, LOCK_SH | LOCK_NB) < 0 && errno == EWOULDBLOCK);
	CHECK(flock(flocked, LOCK_UN) == 0 && flock(other, LOCK_SH | LOCK_NB) == 0);
	announce("given up");
	whole.l_type = F_UNLCK;
	CHECK(fcntl(file, F_SETLK, &whole) == 0);
	CHECK(waitpid(waiting, &status, 0) == waiting);
	CHECK_EQ(status, 0);
	return verdict();
}
