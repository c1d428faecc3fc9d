/*
 * WORKERS processes that count in one shared anonymous mapping, under a mutex and condition variables of all processes.
 * Half of them take turns, woken by who was before them; the others come when they like.  Whoever has the lock checks
 * that what all have counted is the total.  The total is in the mapped file "beat".
 */
#include "tree.h"
#include <pthread.h>
#include <sys/mman.h>

#define MOST 1000

struct board {
	pthread_mutex_t lock;
	pthread_cond_t turn_has_come[MOST];
	long turn, total, counted[MOST];
	atomic_bool done;
};

static struct board *board;
static _Atomic int64_t *beat;
static long workers = 50;

static void *map_shared(size_t size, int flags, int fd)
{
	void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);

	MUST(address != MAP_FAILED);
	return address;
}

/* With the lock held. */
static void check_sum(void)
{
	long sum = 0;

	for (long i = 0; i < workers; i++)
		sum += board->counted[i];
	CHECK_EQ(sum, board->total);
}

static void count(long me, long *mine)
{
	CHECK_EQ(board->counted[me], *mine);
	check_sum();
	board->counted[me] = ++*mine;
	board->total++;
	atomic_fetch_add(beat, 1);
}

static void work(void *number)
{
	long me = *(long *)number, mine = 0;

	is_set_up();
	while (!board->done) {
		CHECK_EQ(pthread_mutex_lock(&board->lock), 0);
		if (me % 2 == 0) {
			while (board->turn != me && !board->done)
				CHECK_EQ(pthread_cond_wait(&board->turn_has_come[me], &board->lock), 0);
			if (board->turn == me) {
				count(me, &mine);
				board->turn = me + 2 < workers ? me + 2 : 0;
				CHECK_EQ(pthread_cond_signal(&board->turn_has_come[board->turn]), 0);
			}
			CHECK_EQ(pthread_mutex_unlock(&board->lock), 0);
			sleep_ms(1);
		} else {
			count(me, &mine);
			CHECK_EQ(pthread_mutex_unlock(&board->lock), 0);
			sleep_ms(20);
		}
	}
	CHECK_EQ(board->counted[me], mine);
}

int main(void)
{
	pthread_mutexattr_t of_lock;
	pthread_condattr_t of_turn;
	pid_t pids[MOST];
	int fd = open("beat", O_RDWR | O_CREAT, 0644);

	if (getenv("WORKERS") != NULL)
		workers = atol(getenv("WORKERS"));
	MUST(workers > 0 && workers <= MOST);
	MUST(fd >= 0 && ftruncate(fd, 4096) == 0);
	beat = map_shared(4096, 0, fd);
	board = map_shared(sizeof(*board), MAP_ANONYMOUS, -1);
	MUST(pthread_mutexattr_init(&of_lock) == 0 && pthread_mutexattr_setpshared(&of_lock, PTHREAD_PROCESS_SHARED) == 0);
	MUST(pthread_mutex_init(&board->lock, &of_lock) == 0);
	MUST(pthread_condattr_init(&of_turn) == 0 && pthread_condattr_setpshared(&of_turn, PTHREAD_PROCESS_SHARED) == 0);
	for (long i = 0; i < workers; i++)
		MUST(pthread_cond_init(&board->turn_has_come[i], &of_turn) == 0);
	tree_begins();
	for (long i = 0; i < workers; i++)
		pids[i] = child(work, &i);
	wait_set_up(workers);
	ready();
	CHECK_EQ(pthread_mutex_lock(&board->lock), 0);
	check_sum();
	board->done = 1;
	for (long i = 0; i < workers; i++)
		CHECK_EQ(pthread_cond_broadcast(&board->turn_has_come[i]), 0);
	CHECK_EQ(pthread_mutex_unlock(&board->lock), 0);
	for (long i = 0; i < workers; i++)
		CHECK_ENDED_WELL(pids[i]);
	check_sum();
	check_no_child();
	return verdict();
}
