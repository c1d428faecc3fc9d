/*
 * The machine code that criupy puts into tasks.  Position independent, no stack, no FPU, never written by the task:
 * red zones, goroutine stacks and vector registers need no care.  `scripts/assemble-blob` turns it into blob.py.
 *
 *   boot   maps the work area          run    walks a batch of system calls
 *   fini   unmaps the work area        leave  gives mask and registers back and goes on where the thread was
 *
 * Between the stages the thread *meets* its tracer: tgkill(itself, X), X a signal that the process neither handles nor
 * blocks.  Traced, that is a signal-delivery-stop (the kernel drops no signal of a traced task as ignored), and the
 * tracer sets %rip to the stage that it wants.  Untraced, because the tracer was killed, it is nothing at all, and
 * the thread falls through to the next stage and leaves by itself.
 *
 * No rt_sigreturn: it resets restart_block, and an interrupted nanosleep would come back with EINTR.
 * No int3: a forced SIGTRAP resets dispositions, and kills without a tracer.
 *
 * Registers, set by the tracer with %rip: rbx base of offsets in records, r12 first record, r13 end of records,
 * r14 X.  The code keeps r15 (where to go on after a meeting) and rbp for itself.
 */
	.text

	/* The kernel itself restarts an interrupted call of the thread (%rip - 2 from `interrupted`), or gives it EINTR. */
stub:	jmp	1f
interrupted:
	jmp	give_eintr
1:	jmp	*first(%rip)

boot:	lea	data(%rip), %rbp
	mov	$9, %eax		/* mmap(area, area_length, area_prot, PRIVATE|ANONYMOUS|FIXED_NOREPLACE, -1, 0) */
	mov	area-data(%rbp), %rdi
	mov	area_length-data(%rbp), %rsi
	mov	area_prot-data(%rbp), %edx
	mov	$0x100022, %r10d
	or	$-1, %r8
	xor	%r9d, %r9d
	syscall
	lea	leave(%rip), %r15
	mov	%rax, %rbx
	cmp	%rax, area-data(%rbp)
	jne	meet
	mov	$10, %eax		/* mprotect(tables, tables_length, READ|WRITE) */
	mov	tables-data(%rbp), %rdi
	mov	tables_length-data(%rbp), %rsi
	mov	$3, %edx
	syscall
	mov	%rax, %rbx		/* rbx: 0, or why there is no work area */
	lea	fini(%rip), %r15
	jmp	meet

	/* A record: u32 number, u16 which arguments are offsets of results, u16 flags, u64 arguments[6], s64 result. */
run:	cmp	%r13, %r12
	jae	walked
	movzwl	4(%r12), %ebp
	movzbl	7(%r12), %edx
	xor	%ecx, %ecx
1:	test	%ebp, %ebp
	jz	3f
	shr	%edx			/* carry: the result has 32 bits */
	sbb	%edi, %edi
	shr	%ebp			/* carry: the argument is an offset */
	jnc	2f
	mov	8(%r12,%rcx,8), %rax
	mov	(%rbx,%rax), %rax
	test	%edi, %edi
	jz	4f
	mov	%eax, %eax
4:	mov	%rax, 8(%r12,%rcx,8)
2:	inc	%ecx
	jmp	1b
3:	mov	(%r12), %eax
	mov	8(%r12), %rdi
	mov	16(%r12), %rsi
	mov	24(%r12), %rdx
	mov	32(%r12), %r10
	mov	40(%r12), %r8
	mov	48(%r12), %r9
	syscall
	mov	%rax, 56(%r12)
	cmp	$-4095, %rax
	jb	5f
	testb	$1, 6(%r12)		/* failure tolerated? */
	jz	walked
5:	add	$64, %r12
	jmp	run
walked:	lea	fini(%rip), %r15

meet:	mov	$39, %eax		/* getpid */
	syscall
	mov	%eax, %ebp
	mov	$186, %eax		/* gettid */
	syscall
	mov	%ebp, %edi
	mov	%eax, %esi
	mov	%r14d, %edx
	mov	$234, %eax		/* tgkill */
	syscall
meeting:
	jmp	*%r15

fini:	mov	fini_length(%rip), %rsi	/* 0 while other threads still use the work area */
	test	%rsi, %rsi
	jz	leave
	mov	area(%rip), %rdi
	mov	$11, %eax		/* munmap */
	syscall
	mov	%rax, %rbx
	lea	leave(%rip), %r15
	jmp	meet

	/* From here on without a tracer only.  A handler that must make the interrupted call fail with EINTR runs in a
	   ppoll that does not wait; the timeout is zero, so the kernel does not write it back. */
	jmp	leave			/* the tracer sends a thread to `return` before it unblocks its signals: as `interrupted` */
return:	jmp	give_eintr
leave:	xor	%ebp, %ebp
	cmpl	$0, interruptible(%rip)
	je	unmask
	mov	$271, %eax		/* ppoll(NULL, 0, {0, 0}, interruptible_mask, 8) */
	xor	%edi, %edi
	xor	%esi, %esi
	lea	zero(%rip), %rdx
	lea	interruptible_mask(%rip), %r10
	mov	$8, %r8d
	syscall
	cmp	$-4, %eax
	jne	unmask
give_eintr:
	mov	$1, %ebp
unmask:	mov	$14, %eax		/* rt_sigprocmask(SIG_SETMASK, mask, NULL, 8) */
	mov	$2, %edi
	lea	mask(%rip), %rsi
	xor	%edx, %edx
	mov	$8, %r10d
	syscall
	lea	saved(%rip), %rax
	test	%ebp, %ebp		/* the loads leave the flags alone */
	mov	0(%rax), %r15
	mov	8(%rax), %r14
	mov	16(%rax), %r13
	mov	24(%rax), %r12
	mov	32(%rax), %rbp
	mov	40(%rax), %rbx
	mov	48(%rax), %r11
	mov	56(%rax), %r10
	mov	64(%rax), %r9
	mov	72(%rax), %r8
	mov	80(%rax), %rcx
	mov	88(%rax), %rdx
	mov	96(%rax), %rsi
	mov	104(%rax), %rdi
	mov	saved_flags(%rip), %eax	/* al: 1 if OF, ah: SF ZF AF PF CF; DF was never touched */
	jnz	1f
	add	$0x7f, %al
	sahf
	mov	saved_rax(%rip), %rax
	jmp	*saved_rip(%rip)
1:	add	$0x7f, %al
	sahf
	mov	$-4, %rax
	jmp	*eintr_rip(%rip)

	.balign	8
data:
signature:	.ascii	"criupy-1"
nonce:		.quad	0		/* also at the start of the work area */
area:		.quad	0
area_length:	.quad	0
tables:		.quad	0
tables_length:	.quad	0
fini_length:	.quad	0
first:		.quad	0		/* the address of boot, or of run */
area_prot:	.long	0
interruptible:	.long	0
interruptible_mask: .quad 0
mask:		.quad	0
zero:		.quad	0, 0
saved_rip:	.quad	0
eintr_rip:	.quad	0
saved_rax:	.quad	0
saved_flags:	.quad	0
saved:		.fill	14, 8, 0
stub_end:

	/* The first process of a restore waits here for its tracer, and dies with it. */
nursery:
	mov	$157, %eax		/* prctl(PR_SET_PDEATHSIG, SIGKILL) */
	mov	$1, %edi
	mov	$9, %esi
	syscall
	mov	$110, %eax		/* getppid: did the parent die before? */
	syscall
	cmp	nursery_parent(%rip), %eax
	jne	2f
1:	mov	$34, %eax		/* pause */
	syscall
	jmp	1b
2:	mov	$231, %eax		/* exit_group(0) */
	xor	%edi, %edi
	syscall
	.balign	4
nursery_parent:	.long	0
blob_end:
