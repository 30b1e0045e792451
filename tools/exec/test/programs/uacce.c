/* Queues through uacce: /dev/idxd_dwq-0 and /dev/idxd_swq-0. Argument: "remove": the test takes the device away when it reads a line from us. */
#include "queue.h"
#include <dirent.h>
#define BIT(n) (1u << (n)) /* the header is without it */
#include <misc/uacce/uacce.h>
#include <poll.h>
#include <setjmp.h>
#include <sys/ioctl.h>
#define CLASS "/sys/class/uacce/"
#define GET_INTERRUPT _IOR('D', 1, uint32_t)

static sigjmp_buf back;
static volatile int number_seen;
static void handler(int number)
{
	number_seen = number;
	siglongjmp(back, 1);
}
#define SIGNAL_OF(...)                                                                                                                         \
	({                                                                                                                                     \
		number_seen = 0;                                                                                                               \
		if (!sigsetjmp(back, 1)) {                                                                                                     \
			__VA_ARGS__;                                                                                                           \
		}                                                                                                                              \
		number_seen;                                                                                                                   \
	})
static const char *text(const char *name, const char *attribute)
{
	static char out[4096];
	char path[512];
	snprintf(path, sizeof path, CLASS "%s/%s", name, attribute);
	FILE *file = fopen(path, "r");
	if (!file)
		return "none";
	out[fread(out, 1, sizeof out - 1, file)] = 0;
	fclose(file);
	return out;
}
static void *region(int fd)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
}

int main(int argc, char **argv)
{
	signal(SIGBUS, handler);
	signal(SIGSEGV, handler);
	/* As libraries find them: the class, attributes, the parent, the node. */
	DIR *folder = opendir(CLASS);
	int found = 0;
	CHECK(folder);
	for (struct dirent *entry; (entry = readdir(folder));)
		found += !strcmp(entry->d_name, "idxd_dwq-0") || !strcmp(entry->d_name, "idxd_swq-0");
	closedir(folder);
	CHECK(found == 2);
	CHECK(!strcmp(text("idxd_dwq-0", "api"), "idxd_dwq_v1\n") && !strcmp(text("idxd_swq-0", "api"), "idxd_swq_v1\n"));
	CHECK(atoi(text("idxd_dwq-0", "flags")) & UACCE_DEV_SVA && strstr(text("idxd_dwq-0", "algorithms"), "memmove\n"));
	CHECK(atoi(text("idxd_dwq-0", "region_mmio_size")) == 4096 && atoi(text("idxd_dwq-0", "available_instances")) == 3);
	CHECK(!strcmp(text("idxd_dwq-0", "device/numa_node"), "-1\n"));
	char real[PATH_MAX], link[PATH_MAX];
	CHECK(realpath(CLASS "idxd_dwq-0/device", real) && !strncmp(real, "/sys/devices/pci", 16) && readlink(CLASS "idxd_dwq-0/device", link, sizeof link) > 0);
	CHECK(access("/dev/dsa/wq0.0", F_OK) == -1 && access("/dev/idxd_swq-0", R_OK | W_OK) == 0);

	/* Dedicated: three, each one file's. */
	int fds[3];
	for (int i = 0; i < 3; i++)
		CHECK((fds[i] = open("/dev/idxd_dwq-0", O_RDWR | O_CLOEXEC)) >= 0);
	CHECK(open("/dev/idxd_dwq-0", O_RDWR) == -1 && errno == EBUSY && atoi(text("idxd_dwq-0", "available_instances")) == 0);
	CHECK(close(fds[2]) == 0 && atoi(text("idxd_dwq-0", "available_instances")) == 1);
	void *first = region(fds[0]), *second = region(fds[1]);
	CHECK(first != MAP_FAILED && second != MAP_FAILED && region(fds[0]) == MAP_FAILED && errno == EEXIST);
	CHECK(mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fds[0], 4096) == MAP_FAILED && errno == EINVAL); /* it has no shared region */
	CHECK(mmap(NULL, 8192, PROT_WRITE, MAP_SHARED, fds[1], 0) == MAP_FAILED);
	CHECK(ioctl(fds[0], UACCE_CMD_START_Q) == 0 && ioctl(fds[0], UACCE_CMD_START_Q) == -1 && errno == EINVAL);
	CHECK(copies(first, 0) == 1);
	CHECK(ioctl(fds[1], UACCE_CMD_START_Q) == 0 && copies(second, 0) == 1 && copies(first, 0) == 1);
	CHECK(ioctl(fds[0], 0x1234) == -1 && errno == EINVAL);
	/* A completion interrupt, told by poll once. The region that is mapped afterwards is the one that uses it. */
	uint32_t handle = 0;
	CHECK(munmap(first, 4096) == 0 && ioctl(fds[0], GET_INTERRUPT, &handle) == 0);
	first = region(fds[0]);
	CHECK(first != MAP_FAILED);
	struct pollfd poller = {.fd = fds[0], .events = POLLIN};
	CHECK(poll(&poller, 1, 0) == 0);
	for (int i = 0; i < 3; i++) {
		char from[64] = "interrupt", to[64] = "";
		struct dsa_completion_record record __attribute__((aligned(64))) = {0};
		struct dsa_hw_desc copy = memmove_of(to, from, sizeof to, &record);
		copy.flags |= IDXD_OP_FLAG_RCI;
		copy.int_handle = (uint16_t)handle;
		movdir64b(first, &copy);
		CHECK(poll(&poller, 1, 5000) == 1 && poller.revents == POLLIN && *(volatile uint8_t *)&record.status == 1 && !memcmp(from, to, sizeof to));
		CHECK(poll(&poller, 1, 20) == 0);
	}
	/* Stopped, it takes nothing; the others go on. */
	CHECK(ioctl(fds[0], UACCE_CMD_PUT_Q) == 0 && ioctl(fds[0], UACCE_CMD_PUT_Q) == 0);
	CHECK(copies(second, 0) == 1);
	CHECK(ioctl(fds[0], UACCE_CMD_START_Q) == 0 && copies(first, 0) == 1);

	/* Shared: many files. */
	int shared[4];
	void *portals[4];
	for (int i = 0; i < 4; i++) {
		CHECK((shared[i] = open("/dev/idxd_swq-0", O_RDWR)) >= 0);
		CHECK((portals[i] = region(shared[i])) != MAP_FAILED && ioctl(shared[i], UACCE_CMD_START_Q) == 0 && copies(portals[i], 1) == 1);
	}
	/* A child has nothing of it, and opens its own. */
	pid_t child = fork();
	if (child == 0) {
		CHECK(SIGNAL_OF(*(volatile int *)first = 1) == SIGSEGV);
		int own = open("/dev/idxd_swq-0", O_RDWR);
		void *portal = region(own);
		CHECK(own >= 0 && portal != MAP_FAILED && ioctl(own, UACCE_CMD_START_Q) == 0 && copies(portal, 1) == 1);
		_exit(0);
	}
	CHECK(ended(child) == 0 && copies(portals[3], 1) == 1);

	if (argc > 1) {
		/* The device goes: queues are dead, mappings fault, files stay. */
		char line[8];
		CHECK(write(STDOUT_FILENO, "ready\n", 6) == 6 && read(STDIN_FILENO, line, sizeof line) > 0);
		struct dsa_hw_desc nothing __attribute__((aligned(64))) = {0};
		CHECK(access("/dev/idxd_dwq-0", F_OK) == -1 && open("/dev/idxd_swq-0", O_RDWR) == -1 && errno == ENOENT);
		CHECK(SIGNAL_OF(movdir64b(first, &nothing)) == SIGBUS && SIGNAL_OF(enqcmd(portals[0], &nothing)) == SIGBUS);
		CHECK(SIGNAL_OF(*(volatile int *)second = 1) == SIGBUS);
		CHECK(ioctl(fds[0], UACCE_CMD_START_Q) == -1 && errno == ENXIO && region(fds[1]) == MAP_FAILED && errno == ENXIO);
		CHECK(poll(&poller, 1, 0) == 0 && close(fds[0]) == 0 && close(shared[0]) == 0);
	}
	return 0;
}
