/*
 * A vdso as no kernel has it: the functions that all have, at other places, and each of them kills.  A program whose image
 * has this one lives only if the restore leads every function to the kernel's own.
 */
	.macro function name
	.balign 128
	.globl \name
	.type \name, @function
\name:
	.fill 40, 2, 0x0b0f	/* ud2 */
	.size \name, . - \name
	.endm

	.text
	.fill 512, 1, 0xcc
	function __vdso_time
	function __vdso_getcpu
	function __vdso_clock_gettime
	function __vdso_gettimeofday
	function __vdso_clock_getres
	.section .note.GNU-stack, "", @progbits
