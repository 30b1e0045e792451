/* Mappings of a device of the test, /dev/siov-map: memory that is shared, registers that are shown, pages that trap. Offsets and ioctls: test/mapped.test.ts. */
#include "queue.h"
#include <setjmp.h>
#include <sys/ioctl.h>

enum { PEEK = 1, POKE = 2, ZAP = 3, LOADS = 4, BACK = 5, CLOSED = 6, BUMP = 7 };
enum { RAM = 0, REGISTERS = 0x10000, MIXED = 0x20000, REFUSED = 0x30000 };
#define PAGES 3

static sigjmp_buf back;
static volatile int number_seen;
static void *volatile address_seen;
static void handler(int number, siginfo_t *info, void *context)
{
	(void)context;
	number_seen = number;
	address_seen = info->si_addr;
	siglongjmp(back, 1);
}
#define SIGNAL_OF(...)                                                                                                                         \
	({                                                                                                                                     \
		number_seen = 0, address_seen = NULL;                                                                                          \
		if (!sigsetjmp(back, 1)) {                                                                                                     \
			__VA_ARGS__;                                                                                                           \
		}                                                                                                                              \
		number_seen;                                                                                                                   \
	})
static int fd;
static uint32_t peek(unsigned page)
{
	uint32_t word = page;
	CHECK(ioctl(fd, PEEK, &word) == 0);
	return word;
}
static volatile uint32_t *map(int prot, size_t length, off_t offset)
{
	return mmap(NULL, length, prot, MAP_SHARED, fd, offset);
}
static void *registers_of(int fd) { return mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, REGISTERS); }

int main(void)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	CHECK(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0);
	fd = open("/dev/siov-map", O_RDWR);
	CHECK(fd >= 0);
	int closed = ioctl(fd, CLOSED, 0);

	/* The very memory, pages in order wherever their frames are. */
	volatile uint32_t *ram = map(PROT_READ | PROT_WRITE, PAGES * 4096, RAM), *twin = map(PROT_READ | PROT_WRITE, PAGES * 4096, RAM);
	CHECK(ram != MAP_FAILED && twin != MAP_FAILED && ram != twin);
	for (unsigned i = 0; i < PAGES; i++) {
		CHECK(ram[i * 1024] == 0x1000 + i); /* as the driver left it */
		ram[i * 1024] = 0x2000 + i;
		CHECK(peek(i) == 0x2000 + i && twin[i * 1024] == 0x2000 + i);
		CHECK(ioctl(fd, POKE, i) == 0 && ram[i * 1024] == 0x3000 + i);
	}
	/* A child does not have it. */
	pid_t child = fork();
	if (child == 0) {
		_exit(SIGNAL_OF((void)ram[0]) == SIGSEGV && SIGNAL_OF(ram[0] = 1) == SIGSEGV ? 0 : 1);
	}
	CHECK(ended(child) == 0);
	/* Rights are those of the mapping. */
	volatile uint32_t *reader = map(PROT_READ, PAGES * 4096, RAM), *writer = map(PROT_WRITE, PAGES * 4096, RAM), *nobody = map(PROT_NONE, 4096, RAM);
	CHECK(reader[1024] == 0x3001 && SIGNAL_OF(reader[1024] = 1) == SIGSEGV && address_seen == &reader[1024]);
	writer[1025] = 7;
	CHECK(ram[1025] == 7 && SIGNAL_OF((void)nobody[0]) == SIGSEGV);

	CHECK(mprotect((void *)registers_of(fd), 4096, PROT_NONE) == -1 && errno == EACCES);
	/* A part goes, in the middle, at the start, at the end; the driver hears of the last. */
	CHECK(munmap((void *)(ram + 1024), 4096) == 0);
	CHECK(SIGNAL_OF((void)ram[1024]) == SIGSEGV && ram[0] == 0x3000 && ram[2048] == 0x3002);
	char *plain = mmap((void *)(ram + 1024), 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(plain == (char *)(ram + 1024) && *plain == 0 && (*plain = 1) && ram[2048] == 0x3002);
	CHECK(munmap((void *)ram, 4096) == 0 && SIGNAL_OF((void)ram[0]) == SIGSEGV && ram[2048] == 0x3002 && ioctl(fd, CLOSED, 0) == closed);
	CHECK(munmap((void *)ram, 3 * 4096) == 0 && ioctl(fd, CLOSED, 0) == closed + 1);
	CHECK(twin[1024] == 0x3001 && peek(1) == 0x3001); /* others' stays */

	/* Registers: a page that is read again and again costs no trap, and shows what a read would give; stores reach the device. */
	volatile uint32_t *registers = map(PROT_READ | PROT_WRITE, 2 * 4096, REGISTERS);
	CHECK(registers != MAP_FAILED);
	for (unsigned i = 0; i < 10; i++)
		CHECK(registers[0] == 0x100 && registers[1025] == 0x401);
	int loads = ioctl(fd, LOADS, 0);
	for (unsigned i = 0; i < 10000; i++)
		CHECK(registers[0] == 0x100 && registers[1025] == 0x401);
	CHECK(ioctl(fd, LOADS, 0) == loads && loads < 20);
	registers[0] = 0x555;
	CHECK(registers[0] == 0x555);
	*(volatile uint64_t *)(registers + 2) = 0x1122334455667788;
	CHECK(registers[2] == 0x55667788 && registers[3] == 0x11223344 && *(volatile uint64_t *)(registers + 2) == 0x1122334455667788);
	CHECK(ioctl(fd, BUMP, 0) == 0 && registers[0] == 0x556); /* the device changed it */
	volatile uint32_t *status = map(PROT_READ, 4096, REGISTERS);
	for (unsigned i = 0; i < 10; i++)
		CHECK(status[0] == 0x556);
	CHECK(SIGNAL_OF(status[0] = 1) == SIGSEGV && address_seen == status && registers[0] == 0x556);
	volatile uint32_t *command = map(PROT_WRITE, 4096, REGISTERS);
	command[0] = 0x777;
	CHECK(command[0] == 0x777 && registers[0] == 0x777);
	/* The copy is the server's: a program that opens it again cannot write it. */
	char name[64], line[256];
	snprintf(name, sizeof name, "/proc/self/map_files/%lx-%lx", (unsigned long)registers, (unsigned long)registers + 4096);
	int again = open(name, O_RDWR);
	CHECK(again < 0 || mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0) == MAP_FAILED);
	CHECK(again < 0 || write(again, line, 4) == -1);
	/* Of RAM it gets what it was given, and no more; it cannot take bytes from the server. */
	snprintf(name, sizeof name, "/proc/self/map_files/%lx-%lx", (unsigned long)twin, (unsigned long)twin + PAGES * 4096);
	struct stat st;
	int own = open(name, O_RDWR);
	CHECK(own < 0 || (fstat(own, &st) == 0 && st.st_size == PAGES * 4096 && ftruncate(own, 0) == -1 && errno == EPERM));
	if (own < 0)
		fprintf(stderr, "left out: map_files is for root alone\n");

	/* One mapping of both: the first page traps, the second is memory. */
	volatile uint32_t *mixed = map(PROT_READ | PROT_WRITE, 2 * 4096, MIXED);
	CHECK(mixed != MAP_FAILED);
	loads = ioctl(fd, LOADS, 0);
	for (unsigned i = 0; i < 10; i++)
		CHECK(mixed[0] == 0xabc && mixed[1024] == 0x3000);
	CHECK(ioctl(fd, LOADS, 0) == loads + 10);
	mixed[1024] = 0x4000;
	CHECK(twin[0] == 0x4000 && peek(0) == 0x4000);
	CHECK(munmap((void *)mixed, 8192) == 0 && twin[0] == 0x4000);

	/* The device goes: what is mapped of it is gone at once, and what the program stores reaches nobody. */
	CHECK(ioctl(fd, ZAP, 0) == 0);
	CHECK(SIGNAL_OF((void)twin[0]) == SIGBUS && SIGNAL_OF(twin[1024] = 1) == SIGBUS && address_seen == &twin[1024]);
	CHECK(SIGNAL_OF((void)registers[0]) == SIGBUS && SIGNAL_OF(registers[0] = 1) == SIGBUS && SIGNAL_OF((void)status[0]) == SIGBUS);
	CHECK(SIGNAL_OF(movdir64b((void *)registers, (void *)line)) == SIGBUS && peek(0) == 0x4000);
	/* Comes back: pages are asked for when they are touched. */
	CHECK(ioctl(fd, BACK, 0) == 0);
	CHECK(twin[0] == 0x4000 && (twin[0] = 0x4001) && peek(0) == 0x4001 && registers[0] == 0x777);
	*(volatile uint8_t *)((volatile char *)twin + 1) = 0x55;
	CHECK(twin[0] == 0x5501 && peek(0) == 0x5501);
	CHECK(SIGNAL_OF(*(volatile uint64_t *)((volatile char *)twin + 4092)) == 0);

	/* Wrong arguments. */
	CHECK(map(PROT_READ, 0, RAM) == MAP_FAILED && errno == EINVAL);
	CHECK(map(PROT_READ, 4096, 0x123) == MAP_FAILED && errno == EINVAL);
	CHECK(map(PROT_READ, 4096, -4096) == MAP_FAILED);
	CHECK(map(PROT_READ, 1ul << 62, RAM) == MAP_FAILED && errno == ENOMEM);
	CHECK(map(PROT_READ, 1ul << 40, RAM) == MAP_FAILED);
	CHECK(map(PROT_READ, 4096, REFUSED) == MAP_FAILED && errno == EPERM);
	CHECK(mmap((void *)0x1001, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, fd, RAM) == MAP_FAILED && errno == EINVAL);
	volatile uint32_t *odd = map(PROT_READ, 100, RAM);
	CHECK(odd != MAP_FAILED && odd[0] == 0x5501 && munmap((void *)odd, 100) == 0 && SIGNAL_OF((void)odd[0]) == SIGSEGV);
	/* More than a process may have: refused, and nothing is lost. */
	void *many[100];
	int n = 0;
	while (n < 100 && (many[n] = (void *)map(PROT_READ, 4096, RAM)) != MAP_FAILED)
		n++;
	CHECK(n > 40 && n < 100 && errno == ENOMEM && *(volatile uint32_t *)many[n - 1] == 0x5501);
	while (n-- > 0)
		CHECK(munmap(many[n], 4096) == 0);
	/* A mapping over another. */
	void *over = mmap((void *)twin, 4096, PROT_READ, MAP_SHARED | MAP_FIXED, fd, REGISTERS);
	CHECK(over == (void *)twin && *(volatile uint32_t *)over == 0x777);
	CHECK(close(fd) == 0 && *(volatile uint32_t *)over == 0x777);
	return 0;
}
