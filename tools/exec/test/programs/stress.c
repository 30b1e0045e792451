/*
 * Eight processes of four threads each on one shared queue, for argv[1] milliseconds; one of them is killed every few milliseconds, and another
 * takes its place. Every other one's data must be right to the end. argv[2]: seed.
 */
#include "queue.h"
#include <stdatomic.h>

#define PROCESSES 8
#define THREADS 4
#define ROOM 65536

struct shared {
	_Atomic long descriptors, wrong, retries;
	_Atomic int stop;
};
static struct shared *all;
static void *portal;

static uint32_t next(uint32_t *state)
{
	*state ^= *state << 13, *state ^= *state >> 17, *state ^= *state << 5;
	return *state;
}
static uint32_t crc_of(const uint8_t *bytes, size_t n)
{
	uint32_t crc = ~0u;
	while (n--)
		for (int bit = ((crc ^= *bytes++), 0); bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	return ~crc;
}
/* One operation of random kind, size and bytes; 0 when all is as it must be. */
static int one(uint8_t *a, uint8_t *b, struct dsa_completion_record *record, uint32_t *seed)
{
	uint32_t n = 1 + next(seed) % (next(seed) % 8 ? 2000 : ROOM), kind = next(seed) % 4, at = next(seed) % n;
	for (uint32_t i = 0; i < n; i += 4)
		*(uint32_t *)(a + i) = next(seed);
	memset(b, 0xee, n + 1);
	struct dsa_hw_desc d = memmove_of(b, a, n, record);
	d.completion_addr = (uintptr_t)record;
	if (kind == 1) {
		d.opcode = DSA_OPCODE_MEMFILL;
		d.pattern = 0x0101010101010101ull * (at & 0xff);
	} else if (kind == 2) {
		d.opcode = DSA_OPCODE_COMPARE;
		memcpy(b, a, n);
		b[at] ^= 1;
	} else if (kind == 3) {
		d.opcode = DSA_OPCODE_CRCGEN;
		d.dst_addr = 0;
		n = d.xfer_size = n % 4096 + 1;
	}
	while (enqcmd(portal, &d)) {
		all->retries++;
		sched_yield();
	}
	if (done(record, 60) != DSA_COMP_SUCCESS)
		return 1;
	all->descriptors++;
	if (kind == 0)
		return memcmp(a, b, n) || b[n] != 0xee;
	if (kind == 1) {
		for (uint32_t i = 0; i < n; i++)
			if (b[i] != (at & 0xff))
				return 1;
		return b[n] != 0xee;
	}
	if (kind == 2)
		return record->result != 1 || record->bytes_completed != at;
	return (uint32_t)record->crc_val != crc_of(a, n);
}
static void *thread(void *seed)
{
	static __thread struct dsa_completion_record record __attribute__((aligned(64)));
	uint8_t *a = malloc(ROOM + 8), *b = malloc(ROOM + 8);
	uint32_t state = (uint32_t)(uintptr_t)seed | 1;
	while (!all->stop)
		if (one(a, b, &record, &state)) {
			fprintf(stderr, "wrong: status %#x\n", record.status);
			all->wrong++;
		}
	return NULL;
}
static pid_t start(uint32_t *seed)
{
	uint32_t own = next(seed);
	pid_t child = fork();
	if (child)
		return child;
	pthread_t threads[THREADS];
	portal = portal_at(SHARED);
	for (long i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, thread, (void *)(uintptr_t)(own + (uint32_t)i * 7919)) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

int main(int argc, char **argv)
{
	long milliseconds = argc > 1 ? atol(argv[1]) : 2000, kills = 0;
	uint32_t seed = argc > 2 ? (uint32_t)atol(argv[2]) | 1 : 1;
	struct timespec from, now;
	pid_t children[PROCESSES];
	all = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < PROCESSES; i++)
		children[i] = start(&seed);
	clock_gettime(CLOCK_MONOTONIC, &from);
	do {
		usleep(next(&seed) % 60000);
		int victim = (int)(next(&seed) % PROCESSES);
		CHECK(kill(children[victim], SIGKILL) == 0 && ended(children[victim]) == -SIGKILL);
		kills++;
		children[victim] = start(&seed);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - from.tv_sec) * 1000 + (now.tv_nsec - from.tv_nsec) / 1000000 < milliseconds);
	all->stop = 1;
	for (int i = 0; i < PROCESSES; i++)
		CHECK(ended(children[i]) == 0);
	printf("%ld descriptors, %ld retries, %ld killed, %ld wrong\n", all->descriptors, all->retries, kills, all->wrong);
	return all->wrong != 0 || all->descriptors == 0;
}
