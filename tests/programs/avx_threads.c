/*
 * Eight threads that compute with live state in AVX registers, in thread-local storage, and around a mutex and condition
 * variables.  Each verifies its results all the time; the count of finished rounds is in the mapped file "beat".
 */
#include "selfcheck.h"
#include <immintrin.h>
#include <pthread.h>
#include <sys/mman.h>

#define THREADS 8
#define SPIN 200000

static _Thread_local uint64_t local_sum;
static _Thread_local uint32_t local_pattern[64];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static unsigned turn;
static uint64_t shared_count;
static atomic_bool done;
static _Atomic uint64_t *beat;

/* Four accumulators stay in ymm registers over the whole loop; the sums are known in closed form. */
__attribute__((target("avx"), noinline)) static int avx_round(unsigned seed)
{
	__m256d one = _mm256_set1_pd(1.0), step = _mm256_set_pd(4, 3, 2, 1);
	__m256d a = _mm256_set1_pd(seed), b = _mm256_setzero_pd(), c = _mm256_set1_pd(-2.0 * seed), d = step;

	for (int i = 0; i < SPIN; i++) {
		a = _mm256_add_pd(a, one);
		b = _mm256_add_pd(b, step);
		c = _mm256_sub_pd(c, one);
		d = _mm256_add_pd(d, one);
		__asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d));
	}
	double out[16] __attribute__((aligned(32)));
	_mm256_store_pd(out, a);
	_mm256_store_pd(out + 4, b);
	_mm256_store_pd(out + 8, c);
	_mm256_store_pd(out + 12, d);
	for (int lane = 0; lane < 4; lane++) {
		double step_of_lane = lane + 1;
		if (out[lane] != (double)seed + SPIN || out[4 + lane] != step_of_lane * SPIN ||
		    out[8 + lane] != -2.0 * seed - SPIN || out[12 + lane] != step_of_lane + SPIN)
			return 0;
	}
	return 1;
}

static atomic_int started;

static void *work(void *argument)
{
	unsigned me = (unsigned)(uintptr_t)argument;
	uint64_t rounds = 0;

	for (int i = 0; i < 64; i++)
		local_pattern[i] = me * 0x01010101u + i;
	started++;
	while (!done) {
		CHECK(avx_round(me * 1000 + rounds % 1000));
		local_sum += me + 1;
		rounds++;
		CHECK_EQ(local_sum, rounds * (me + 1));
		for (int i = 0; i < 64; i++)
			if (local_pattern[i] != me * 0x01010101u + i)
				CHECK(!"thread-local storage changed");

		pthread_mutex_lock(&lock);
		while (turn != me && !done)
			pthread_cond_wait(&turn_changed, &lock);
		if (turn == me) {
			shared_count++;
			turn = (turn + 1) % THREADS;
			atomic_fetch_add(beat, 1);
		}
		pthread_cond_broadcast(&turn_changed);
		pthread_mutex_unlock(&lock);
	}
	return (void *)(uintptr_t)rounds;
}

int main(void)
{
	pthread_t thread[THREADS];
	int fd = open("beat", O_RDWR | O_CREAT, 0644);
	uint64_t rounds = 0;

	if (!__builtin_cpu_supports("avx")) {
		errno = ENOSYS;
		unsupported("AVX");
	}
	MUST(fd >= 0 && ftruncate(fd, 4096) == 0);
	beat = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(beat != MAP_FAILED);
	for (uintptr_t i = 0; i < THREADS; i++)
		MUST(pthread_create(&thread[i], NULL, work, (void *)i) == 0);
	while (started < THREADS)
		sleep_ms(1);
	ready();
	pthread_mutex_lock(&lock);
	done = 1;
	pthread_cond_broadcast(&turn_changed);
	pthread_mutex_unlock(&lock);
	for (int i = 0; i < THREADS; i++) {
		void *result;
		CHECK_EQ(pthread_join(thread[i], &result), 0);
		rounds += (uintptr_t)result;
	}
	/* Whoever was not granted a last turn did one round more than it counted. */
	CHECK(rounds >= shared_count && rounds <= shared_count + THREADS);
	CHECK_EQ(*beat, shared_count);
	return verdict();
}
