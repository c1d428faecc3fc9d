/*
 * Looks the functions of the vdso up by name, after "go", in the ELF file that AT_SYSINFO_EHDR leads to, and calls them.
 * It makes no other use of the vdso, so that the one in the image may have its functions anywhere.
 */
#include "selfcheck.h"
#include <elf.h>
#include <sys/auxv.h>
#include <sys/time.h>

static void *function(const char *wanted)
{
	const char *base = (const char *)getauxval(AT_SYSINFO_EHDR);
	const Elf64_Ehdr *header = (const void *)base;
	const Elf64_Phdr *segment = (const void *)(base + header->e_phoff);
	const Elf64_Dyn *dynamic = NULL;
	const Elf64_Sym *symbols = NULL;
	const char *names = NULL;
	const uint32_t *hash = NULL;

	for (int i = 0; i < header->e_phnum; i++)
		if (segment[i].p_type == PT_DYNAMIC)
			dynamic = (const void *)(base + segment[i].p_vaddr);
	for (; dynamic != NULL && dynamic->d_tag != DT_NULL; dynamic++) {
		if (dynamic->d_tag == DT_SYMTAB)
			symbols = (const void *)(base + dynamic->d_un.d_ptr);
		if (dynamic->d_tag == DT_STRTAB)
			names = base + dynamic->d_un.d_ptr;
		if (dynamic->d_tag == DT_HASH)
			hash = (const void *)(base + dynamic->d_un.d_ptr);
	}
	if (symbols == NULL || names == NULL || hash == NULL)
		return NULL;
	for (uint32_t i = 0; i < hash[1]; i++)
		if (strcmp(names + symbols[i].st_name, wanted) == 0)
			return (void *)(base + symbols[i].st_value);
	return NULL;
}

int main(void)
{
	struct timespec before, now, after;
	struct timeval day;
	unsigned cpu = 99, node = 99;

	MUST(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &before) == 0);
	ready();
	int (*clock_gettime_)(clockid_t, struct timespec *) = function("__vdso_clock_gettime");
	int (*clock_getres_)(clockid_t, struct timespec *) = function("__vdso_clock_getres");
	int (*gettimeofday_)(struct timeval *, void *) = function("__vdso_gettimeofday");
	time_t (*time_)(time_t *) = function("__vdso_time");
	long (*getcpu_)(unsigned *, unsigned *, void *) = function("__vdso_getcpu");
	CHECK(clock_gettime_ != NULL && gettimeofday_ != NULL && time_ != NULL && getcpu_ != NULL);
	if (selfcheck_failures)
		return verdict();
	CHECK_EQ(clock_gettime_(CLOCK_MONOTONIC, &now), 0);
	CHECK(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &after) == 0);
	CHECK(now.tv_sec > before.tv_sec || (now.tv_sec == before.tv_sec && now.tv_nsec >= before.tv_nsec));
	CHECK(now.tv_sec < after.tv_sec || (now.tv_sec == after.tv_sec && now.tv_nsec <= after.tv_nsec));
	CHECK(syscall(SYS_clock_gettime, CLOCK_REALTIME, &after) == 0);
	CHECK_EQ(gettimeofday_(&day, NULL), 0);
	CHECK(llabs(day.tv_sec - after.tv_sec) <= 1);
	CHECK(llabs(time_(NULL) - after.tv_sec) <= 1);
	CHECK_EQ(getcpu_(&cpu, &node, NULL), 0);
	CHECK(cpu < 4096 && node < 1024);
	if (clock_getres_ != NULL)
		CHECK_EQ(clock_getres_(CLOCK_MONOTONIC, &now), 0);
	return verdict();
}
