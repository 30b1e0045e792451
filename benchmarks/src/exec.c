/*
 * The program of the benchmark `exec`: what a trap costs by itself, and what the device costs under siov exec. Prints one number a line, in
 * nanoseconds. Words: what to measure. SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/idxd.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define MIB2 (2u << 20)
static double now(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
}
static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}
static double median(double *values, int n)
{
	qsort(values, (size_t)n, sizeof *values, by_value);
	return values[n / 2];
}
static void fail(const char *what)
{
	perror(what);
	exit(1);
}
static void movdir64b(void *portal, const void *descriptor)
{
	__asm__ volatile(".byte 0x66, 0x0f, 0x38, 0xf8, 0x02" : : "a"(portal), "d"(descriptor) : "memory");
}
static int enqcmd(void *portal, const void *descriptor)
{
	uint8_t retry;
	__asm__ volatile(".byte 0xf2, 0x0f, 0x38, 0xf8, 0x02\n\tsetz %0" : "=r"(retry) : "a"(portal), "d"(descriptor) : "cc", "memory");
	return retry;
}
static void *portal_of(const char *path)
{
	int fd = open(path, O_RDWR);
	void *portal = fd < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (portal == MAP_FAILED)
		fail(path);
	return portal;
}
/* The processor's trap, a handler that steps over the instruction, and back: what nobody can do without. */
static void over(int number, siginfo_t *info, void *context)
{
	(void)number, (void)info;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 5;
}
static struct dsa_completion_record records[64] __attribute__((aligned(64)));
static void wait_for(volatile struct dsa_completion_record *record)
{
	while (!record->status)
		__builtin_ia32_pause();
	if (record->status != 1)
		fail("status");
}
static struct dsa_hw_desc nop(int i)
{
	records[i].status = 0;
	return (struct dsa_hw_desc){.opcode = DSA_OPCODE_NOOP, .flags = IDXD_OP_FLAG_CRAV | IDXD_OP_FLAG_RCR, .completion_addr = (uintptr_t)&records[i]};
}

int main(int argc, char **argv)
{
	enum { ROUNDS = 2000, DEPTH = 16, BATCH = 64 };
	static double times[ROUNDS];
	static struct dsa_hw_desc d[BATCH] __attribute__((aligned(64)));
	const char *what = argc > 1 ? argv[1] : "";
	if (!strcmp(what, "bare")) {
		/* Both kinds of trap that submissions are: MOVDIR64B to a page that cannot be reached, and ENQCMD. */
		struct sigaction action = {.sa_sigaction = over, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
		sigaction(SIGSEGV, &action, NULL);
		sigaction(SIGILL, &action, NULL);
		void *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		for (int kind = 0; kind < 2; kind++) {
			for (int r = 0; r < ROUNDS; r++) {
				double from = now();
				for (int i = 0; i < DEPTH; i++)
					if (kind)
						enqcmd(page, d);
					else
						movdir64b(page, d);
				times[r] = (now() - from) / DEPTH;
			}
			printf("%f\n", median(times, ROUNDS));
		}
	} else if (!strcmp(what, "movdir64b")) {
		void *portal = portal_of("/dev/dsa/wq0.1");
		for (int r = 0; r < ROUNDS; r++) {
			for (int i = 0; i < DEPTH; i++)
				d[i] = nop(i);
			double from = now();
			for (int i = 0; i < DEPTH; i++)
				movdir64b(portal, &d[i]);
			times[r] = (now() - from) / DEPTH;
			for (int i = 0; i < DEPTH; i++)
				wait_for(&records[i]);
		}
		printf("%f\n", median(times, ROUNDS));
	} else if (!strcmp(what, "enqcmd")) {
		void *portal = portal_of("/dev/dsa/wq0.0");
		for (int r = 0; r < ROUNDS; r++) {
			d[0] = nop(0);
			double from = now();
			while (enqcmd(portal, &d[0]))
				;
			times[r] = now() - from;
			wait_for(&records[0]);
		}
		printf("%f\n", median(times, ROUNDS));
		for (int r = 0; r < 20; r++) {
			usleep(30000);
			d[0] = nop(0);
			double from = now();
			while (enqcmd(portal, &d[0]))
				;
			times[r] = now() - from;
			wait_for(&records[0]);
		}
		printf("%f\n", median(times, 20));
	} else if (!strcmp(what, "rates")) {
		/* Nanoseconds a descriptor: one at a time, 16 in flight, and in batches of 64. */
		void *portal = portal_of("/dev/dsa/wq0.1");
		for (int depth = 1; depth <= DEPTH; depth += DEPTH - 1) {
			for (int r = 0; r < ROUNDS; r++) {
				double from = now();
				for (int i = 0; i < depth; i++) {
					d[i] = nop(i);
					movdir64b(portal, &d[i]);
				}
				for (int i = 0; i < depth; i++)
					wait_for(&records[i]);
				times[r] = (now() - from) / depth;
			}
			printf("%f\n", median(times, ROUNDS));
		}
		struct dsa_completion_record done __attribute__((aligned(64)));
		for (int r = 0; r < ROUNDS / 4; r++) {
			double from = now();
			/* Members that succeed write no record: the batch's own says it. */
			for (int i = 0; i < BATCH; i++) {
				d[i] = nop(i);
				d[i].flags = IDXD_OP_FLAG_CRAV;
			}
			struct dsa_hw_desc batch = {.opcode = DSA_OPCODE_BATCH,
						    .flags = IDXD_OP_FLAG_CRAV | IDXD_OP_FLAG_RCR,
						    .completion_addr = (uintptr_t)&done,
						    .desc_list_addr = (uintptr_t)d,
						    .desc_count = BATCH};
			done.status = 0;
			movdir64b(portal, &batch);
			wait_for(&done);
			times[r] = (now() - from) / BATCH;
		}
		printf("%f\n", median(times, ROUNDS / 4));
	} else if (!strcmp(what, "memmove")) {
		void *portal = portal_of("/dev/dsa/wq0.1");
		char *from = aligned_alloc(4096, MIB2), *to = aligned_alloc(4096, MIB2);
		memset(from, 1, MIB2);
		memset(to, 2, MIB2);
		for (int r = 0; r < 100; r++) {
			records[0].status = 0;
			struct dsa_hw_desc copy = nop(0);
			copy.opcode = DSA_OPCODE_MEMMOVE;
			copy.src_addr = (uintptr_t)from;
			copy.dst_addr = (uintptr_t)to;
			copy.xfer_size = MIB2;
			double start = now();
			movdir64b(portal, &copy);
			wait_for(&records[0]);
			times[r] = now() - start;
		}
		printf("%f\n", median(times, 100));
	} else if (!strcmp(what, "copy")) {
		/* The same bytes of another process, read and written by system calls. */
		char *from = aligned_alloc(4096, MIB2), *to = aligned_alloc(4096, MIB2), *room = aligned_alloc(4096, MIB2);
		memset(from, 1, MIB2);
		memset(to, 2, MIB2);
		memset(room, 3, MIB2);
		pid_t child = fork();
		if (child == 0) {
			memset(from, 4, MIB2);
			memset(to, 5, MIB2);
			pause();
		}
		usleep(50000);
		struct iovec here = {room, MIB2}, source = {from, MIB2}, target = {to, MIB2};
		for (int r = 0; r < 100; r++) {
			double start = now();
			if (process_vm_readv(child, &here, 1, &source, 1, 0) != MIB2 || process_vm_writev(child, &here, 1, &target, 1, 0) != MIB2)
				fail("process_vm");
			times[r] = now() - start;
		}
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		printf("%f\n", median(times, 100));
	} else {
		/* What any program does: files, memory, processes. In processor time: nobody else's work counts. */
		struct timespec at;
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
		double start = (double)at.tv_sec * 1e9 + (double)at.tv_nsec;
		char line[256];
		struct stat st;
		for (int i = 0; i < 2000; i++) {
			int fd = open("/etc/passwd", O_RDONLY);
			while (read(fd, line, sizeof line) > 0)
				;
			fstat(fd, &st);
			close(fd);
			stat("/usr/bin", &st);
			void *page = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			memset(page, i, 65536);
			munmap(page, 65536);
		}
		for (int i = 0; i < 50; i++) {
			pid_t child = fork();
			if (child == 0)
				_exit(0);
			waitpid(child, NULL, 0);
		}
		volatile uint64_t sum = 0;
		for (uint64_t i = 0; i < 50000000; i++)
			sum += i * i;
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
		printf("%f\n", (double)at.tv_sec * 1e9 + (double)at.tv_nsec - start);
	}
	return 0;
}
