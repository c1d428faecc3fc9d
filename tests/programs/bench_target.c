/* What the benchmark dumps: MEBIBYTES of random memory in 4 KiB pages and THREADS sleeping threads; gap.h measures. */
#include "gap.h"
#include <pthread.h>

static void *sleeper(void *unused)
{
	(void)unused;
	for (;;)
		sleep(1000);
	return NULL;
}

int main(void)
{
	size_t size = (size_t)number("MEBIBYTES") << 20;
	_Atomic int64_t *beat = map_beat();
	uint64_t *memory = random_memory(size), before = sum(memory, size);
	pthread_attr_t attributes;
	pthread_t thread;

	MUST(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, 1 << 16) == 0);
	for (long i = number("THREADS"); i > 0; i--)
		MUST(pthread_create(&thread, &attributes, sleeper, NULL) == 0);
	measure_gaps(beat);
	CHECK_EQ(sum(memory, size), before);
	return verdict();
}
