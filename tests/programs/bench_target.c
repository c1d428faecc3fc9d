/*
 * What the benchmark dumps: MEBIBYTES of random memory in 4 KiB pages and THREADS sleeping threads.  Its main thread reads
 * the clock all the time and keeps the largest gap, in nanoseconds, in the second word of the mapped file "beat"; whoever
 * writes a zero there starts the measurement anew.  The first word counts.
 */
#include "selfcheck.h"
#include <pthread.h>
#include <sys/mman.h>

static void *sleeper(void *unused)
{
	(void)unused;
	for (;;)
		sleep(1000);
	return NULL;
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000L + time.tv_nsec;
}

static long number(const char *name)
{
	return getenv(name) != NULL ? atol(getenv(name)) : 0;
}

int main(void)
{
	size_t size = (size_t)number("MEBIBYTES") << 20;
	uint64_t random = 88172645463325252ULL, sum = 0, sum_now = 0, *memory = NULL;
	int fd = open("beat", O_RDWR | O_CREAT, 0644);
	pthread_attr_t attributes;
	pthread_t thread;

	MUST(fd >= 0 && ftruncate(fd, 4096) == 0);
	_Atomic int64_t *beat = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(beat != MAP_FAILED);
	if (size > 0) {
		memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		MUST(memory != MAP_FAILED && madvise(memory, size, MADV_NOHUGEPAGE) == 0);
		for (size_t i = 0; i < size / 8; i++) {
			random ^= random << 13, random ^= random >> 7, random ^= random << 17;
			memory[i] = random;
			sum += random;
		}
	}
	MUST(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, 1 << 16) == 0);
	for (long i = number("THREADS"); i > 0; i--)
		MUST(pthread_create(&thread, &attributes, sleeper, NULL) == 0);
	say("ready");
	for (int64_t last = now(), this; access("go", F_OK) != 0; last = this) {
		/* One look for the file in many reads of the clock. */
		for (int i = 0; i < 100000; i++, last = this) {
			this = now();
			if (this - last > beat[1])
				beat[1] = this - last;
			if (beat[1] == 0)
				this = now();
			beat[0]++;
		}
		this = now();
	}
	for (size_t i = 0; i < size / 8; i++)
		sum_now += memory[i];
	CHECK_EQ(sum_now, sum);
	return verdict();
}
