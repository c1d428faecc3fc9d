/*
 * rseq(2): the registration that glibc made goes on working, and a thread that was stopped inside a critical section
 * finds itself at the abort handler, never in the middle of the section.
 */
#include "selfcheck.h"
#include <pthread.h>
#include <sched.h>
#include <sys/rseq.h>

static atomic_bool done;
static atomic_long aborts, commits, broken;

static struct rseq *own_area(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

/*
 * Adds to a private counter as long as it is in the section, then leaves.  If it is interrupted there the kernel goes to
 * the abort handler: whoever returns with fewer steps than `steps` without an abort was put back wrongly.
 */
static void *sections(void *unused)
{
	const long steps = 100000;

	(void)unused;
	while (!done) {
		long count = 0, aborted = 0;
		uint64_t descriptor = 0;

		__asm__ volatile(
			".pushsection __rseq_cs, \"aw\"\n"
			".balign 32\n"
			"3: .long 0, 0\n"
			".quad 1f, 2f - 1f, 4f\n"
			".popsection\n"
			"leaq 3b(%%rip), %[descriptor]\n"
			"movq %[descriptor], %[area]\n"
			"1:\n"
			"incq %[count]\n"
			"cmpq %[steps], %[count]\n"
			"jl 1b\n"
			"2:\n"
			"jmp 5f\n"
			".long %c[signature]\n"
			"4: movq $1, %[aborted]\n"
			"5:\n"
			: [count] "+r"(count), [aborted] "+r"(aborted), [descriptor] "+r"(descriptor),
			  [area] "=m"(own_area()->rseq_cs)
			: [steps] "r"(steps), [signature] "i"(RSEQ_SIG)
			: "memory", "cc");
		if (aborted)
			aborts++;
		else if (count == steps)
			commits++;
		else
			broken++;
	}
	return NULL;
}

static void check_cpu(int cpu)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one) == 0) {
		CHECK_EQ(own_area()->cpu_id, cpu);
		CHECK_EQ(own_area()->cpu_id_start, cpu);
	}
}

int main(void)
{
	pthread_t thread;

	if (__rseq_size == 0) {
		errno = ENOSYS;
		unsupported("rseq");
	}
	MUST(pthread_create(&thread, NULL, sections, NULL) == 0);
	while (commits == 0)
		sleep_ms(1);
	ready();
	long before = commits;
	for (int i = 0; i < 1000 && commits < before + 10; i++)
		sleep_ms(1);
	CHECK(commits >= before + 10);
	done = 1;
	CHECK_EQ(pthread_join(thread, NULL), 0);
	CHECK_EQ(broken, 0);
	check_cpu(0);
	check_cpu(1);
	check_cpu(0);
	return verdict();
}
