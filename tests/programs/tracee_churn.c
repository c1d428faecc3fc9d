/* Threads that come and go all the time. */
#include "selfcheck.h"
#include <pthread.h>

#define MAKERS 4

static atomic_bool done;

static void *pass(void *number)
{
	usleep(rand() % 300);
	return number;
}

static void *make(void *unused)
{
	(void)unused;
	while (!done) {
		pthread_t thread[3];
		for (uintptr_t i = 0; i < 3; i++)
			MUST(pthread_create(&thread[i], NULL, pass, (void *)i) == 0);
		for (uintptr_t i = 0; i < 3; i++) {
			void *result;
			CHECK_EQ(pthread_join(thread[i], &result), 0);
			CHECK_EQ((uintptr_t)result, i);
		}
	}
	return NULL;
}

int main(void)
{
	pthread_t maker[MAKERS];

	for (int i = 0; i < MAKERS; i++)
		MUST(pthread_create(&maker[i], NULL, make, NULL) == 0);
	ready();
	done = 1;
	for (int i = 0; i < MAKERS; i++)
		CHECK_EQ(pthread_join(maker[i], NULL), 0);
	return verdict();
}
