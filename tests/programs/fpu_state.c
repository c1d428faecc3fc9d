/* Control words of x87 and SSE, the x87 stack, fs and gs bases, in a thread that sits in a system call. */
#include "selfcheck.h"
#include <asm/prctl.h>
#include <fenv.h>
#include <pthread.h>

static int start[2];
static uint64_t gs_area[4] = { 0, 0x1122334455667788, 0, 0 };
static _Thread_local uint64_t local = 42;

static uint64_t read_gs(void)
{
	uint64_t value;

	__asm__ volatile("movq %%gs:8, %0" : "=r"(value));
	return value;
}

static void *thread(void *unused)
{
	unsigned mxcsr = 0x1f80 | 0x6000 | 0x8000 /* toward zero, flush to zero */, now = 0;
	unsigned short control = 0x0f7f /* toward zero, double extended */, control_now = 0;
	double kept = 0;
	long got;
	char byte;

	(void)unused;
	MUST(syscall(SYS_arch_prctl, ARCH_SET_GS, gs_area) == 0);
	local = 43;
	__asm__ volatile("ldmxcsr %0\n fldcw %1" : : "m"(mxcsr), "m"(control));
	/* pi stays on the x87 stack over the read, and values in registers that a system call does not clobber */
	__asm__ volatile("fldpi\n"
			 "movq $0x5a5a5a5a5a5a5a5a, %%r12\n"
			 "movq %%r12, %%xmm15\n"
			 "syscall\n"
			 "fstpl %[kept]\n"
			 "movq %%xmm15, %%r13\n"
			 "xorq %%r12, %%r13\n"
			 "orq %%r13, %%rax\n"
			 : "=a"(got), [kept] "=m"(kept)
			 : "a"(SYS_read), "D"(start[0]), "S"(&byte), "d"(1)
			 : "rcx", "r11", "r12", "r13", "xmm15", "memory", "cc");
	__asm__ volatile("stmxcsr %0\n fnstcw %1" : "=m"(now), "=m"(control_now));
	CHECK_EQ(now & ~0x3f, mxcsr);
	CHECK_EQ(control_now, control);
	__asm__ volatile("ldmxcsr %0" : : "m"((unsigned){ 0x1f80 }));
	CHECK_EQ(got, 1);
	CHECK(kept > 3.14159 && kept < 3.1416);
	CHECK_EQ(read_gs(), gs_area[1]);
	CHECK_EQ(local, 43);
	return NULL;
}

int main(void)
{
	pthread_t other;

	MUST(pipe(start) == 0);
	MUST(pthread_create(&other, NULL, thread, NULL) == 0);
	sleep_ms(20);
	ready();
	CHECK(write(start[1], "x", 1) == 1);
	CHECK_EQ(pthread_join(other, NULL), 0);
	CHECK_EQ(local, 42);
	return verdict();
}
