/*
 * How the benchmark measures the time that a target is frozen: the target reads the clock all the time and keeps the
 * largest gap, in nanoseconds, in the second word of the mapped file "beat"; whoever writes a zero there starts the
 * measurement anew.  The first word counts.
 */
#ifndef GAP_H
#define GAP_H

#include "selfcheck.h"
#include <sys/mman.h>

static _Atomic int64_t *map_beat(void)
{
	int fd = open("beat", O_RDWR | O_CREAT, 0644);

	MUST(fd >= 0 && ftruncate(fd, 4096) == 0);
	_Atomic int64_t *beat = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	MUST(beat != MAP_FAILED);
	return beat;
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000L + time.tv_nsec;
}

/* Says ready and measures until there is a file "go". */
static void measure_gaps(_Atomic int64_t *beat)
{
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
}

static long number(const char *name)
{
	return getenv(name) != NULL ? atol(getenv(name)) : 0;
}

/* `size` bytes in pages of 4 KiB, with random content. */
static inline uint64_t *random_memory(size_t size)
{
	uint64_t random = 88172645463325252ULL;

	if (size == 0)
		return NULL;
	uint64_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	MUST(memory != MAP_FAILED && madvise(memory, size, MADV_NOHUGEPAGE) == 0);
	for (size_t i = 0; i < size / 8; i++) {
		random ^= random << 13, random ^= random >> 7, random ^= random << 17;
		memory[i] = random;
	}
	return memory;
}

static inline uint64_t sum(const uint64_t *memory, size_t size)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < size / 8; i++)
		sum += memory[i];
	return sum;
}

#endif
