/*
 * A work queue as programs of the real device use it: the node opened, a portal mapped, descriptors stored. Each program of these tests prints
 * what it found wrong and ends with 1, or ends with 0. SPDX-License-Identifier: MIT
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/idxd.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SHARED "/dev/dsa/wq0.0"
#define DEDICATED "/dev/dsa/wq0.1"
#define CHECK(condition)                                                                                                                       \
	do                                                                                                                                     \
		if (!(condition)) {                                                                                                            \
			fprintf(stderr, "%s:%d: not so: %s (errno %d)\n", __FILE__, __LINE__, #condition, errno);                               \
			_exit(1);                                                                                                              \
		}                                                                                                                              \
	while (0)

static inline void *portal_of(int fd)
{
	return mmap(NULL, 4096, PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
}
static inline void *portal_at(const char *path)
{
	int fd = open(path, O_RDWR);
	CHECK(fd >= 0);
	void *portal = portal_of(fd);
	CHECK(portal != MAP_FAILED);
	close(fd); /* the mapping keeps the queue */
	return portal;
}
static inline void movdir64b(void *portal, const void *descriptor)
{
	__asm__ volatile(".byte 0x66, 0x0f, 0x38, 0xf8, 0x02" : : "a"(portal), "d"(descriptor) : "memory"); /* movdir64b (%rdx), %rax */
}
/* 1: retry. */
static inline int enqcmd(void *portal, const void *descriptor)
{
	uint8_t retry;
	__asm__ volatile(".byte 0xf2, 0x0f, 0x38, 0xf8, 0x02\n\tsetz %0" : "=r"(retry) : "a"(portal), "d"(descriptor) : "cc", "memory");
	return retry;
}
static inline struct dsa_hw_desc memmove_of(void *to, const void *from, uint32_t length, struct dsa_completion_record *record)
{
	record->status = 0;
	return (struct dsa_hw_desc){.opcode = DSA_OPCODE_MEMMOVE,
				    .flags = IDXD_OP_FLAG_CRAV | IDXD_OP_FLAG_RCR | IDXD_OP_FLAG_BOF,
				    .completion_addr = (uintptr_t)record,
				    .src_addr = (uintptr_t)from,
				    .dst_addr = (uintptr_t)to,
				    .xfer_size = length};
}
/* The status, or 0 after that many seconds. */
static inline int done(const volatile struct dsa_completion_record *record, int seconds)
{
	struct timespec from, now;
	clock_gettime(CLOCK_MONOTONIC, &from);
	do {
		if (record->status)
			return record->status;
		sched_yield();
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - from.tv_sec <= seconds);
	return 0;
}
static inline void submit(void *portal, int shared, const struct dsa_hw_desc *descriptor)
{
	if (!shared)
		movdir64b(portal, descriptor);
	else
		while (enqcmd(portal, descriptor))
			sched_yield();
}
/* One copy of 1000 bytes through the portal, compared: its status, or -1 where the bytes are wrong. */
static inline int copies(void *portal, int shared)
{
	char from[1000], to[1000];
	struct dsa_completion_record record __attribute__((aligned(64)));
	for (size_t i = 0; i < sizeof from; i++)
		from[i] = (char)(i * 7 + (size_t)getpid());
	memset(to, 0, sizeof to);
	struct dsa_hw_desc copy = memmove_of(to, from, sizeof to, &record);
	submit(portal, shared, &copy);
	int status = done(&record, 10);
	return status == DSA_COMP_SUCCESS && memcmp(from, to, sizeof to) ? -1 : status;
}
/* How a child ended: its exit status, or minus the signal. */
static inline int ended(pid_t child)
{
	int status;
	CHECK(waitpid(child, &status, 0) == child);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}
/* Runs what follows in a child: `CHILD(how) { ... }` */
#define CHILD(how) for (pid_t child_ = fork(); child_ == 0 || (how = ended(child_), 0); _exit(0))
