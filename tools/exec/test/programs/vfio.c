/*
 * A whole accelerator driven by a program, as user-space drivers do: found in sysfs, reached through a container or /dev/iommu, set up by its
 * registers, given descriptors with I/O virtual addresses, heard by MSI-X. Arguments: "group" or "cdev"; and "hold": copies go on until a kill.
 * Register offsets: DSA specification, "Register Descriptions".
 */
#include "queue.h"
#include <dirent.h>
#include <linux/vfio.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#define DEVICE "0000:00:01.0"
#define FOLDER "/sys/bus/pci/devices/" DEVICE
#define MEMORY (4ul << 20)
#define IOVA 0x10000000ul
#define RECORDS 0x20000000ul
#define VECTOR 1

/* Of linux/vfio.h and linux/iommufd.h as they are since 6.6: the machine's may be older. */
struct bind {
	uint32_t argsz, flags;
	int32_t iommufd;
	uint32_t devid;
};
struct attach {
	uint32_t argsz, flags, pt;
};
struct ioas_alloc {
	uint32_t size, flags, id;
};
struct ioas_map {
	uint32_t size, flags, id, reserved;
	uint64_t va, length, iova;
};
struct ioas_unmap {
	uint32_t size, id;
	uint64_t iova, length;
};
#define DEVICE_BIND _IO(';', 118)
#define DEVICE_ATTACH _IO(';', 119)
#define IOAS_ALLOC _IO(';', 0x81)
#define IOAS_MAP _IO(';', 0x85)
#define IOAS_UNMAP _IO(';', 0x86)
#define FIXED_WRITEABLE_READABLE 7

static int cdev, container = -1, group = -1, device;
static uint32_t ioas;
static volatile uint8_t *bar0;
static void *portal;
static off_t config;

static int map(void *at, uint64_t iova, size_t length)
{
	if (cdev) {
		struct ioas_map map = {sizeof map, FIXED_WRITEABLE_READABLE, ioas, 0, (uintptr_t)at, length, iova};
		return ioctl(container, IOAS_MAP, &map);
	}
	struct vfio_iommu_type1_dma_map map = {sizeof map, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE, (uintptr_t)at, iova, length};
	return ioctl(container, VFIO_IOMMU_MAP_DMA, &map);
}
/* Bytes that were mapped, or -1. */
static int64_t unmap(uint64_t iova, size_t length)
{
	if (cdev) {
		struct ioas_unmap unmap = {sizeof unmap, ioas, iova, length};
		return ioctl(container, IOAS_UNMAP, &unmap) ? -1 : (int64_t)unmap.length;
	}
	struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof unmap, .iova = iova, .size = length};
	return ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) ? -1 : (int64_t)unmap.size;
}

/* The only entry of a folder that begins with the word. */
static const char *entry_of(const char *folder, const char *begins)
{
	static char name[NAME_MAX + 1];
	DIR *open = opendir(folder);
	CHECK(open);
	name[0] = 0;
	for (struct dirent *entry; (entry = readdir(open));)
		if (!strncmp(entry->d_name, begins, strlen(begins)))
			strcpy(name, entry->d_name);
	closedir(open);
	CHECK(name[0]);
	return name;
}
static unsigned long number_in(const char *path)
{
	char text[64] = "";
	int fd = open(path, O_RDONLY);
	CHECK(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
	close(fd);
	return strtoul(text, NULL, 0);
}
static void open_by_group(void)
{
	char link[PATH_MAX], path[PATH_MAX];
	ssize_t length = readlink(FOLDER "/iommu_group", link, sizeof link - 1);
	CHECK(length > 0);
	link[length] = 0;
	snprintf(path, sizeof path, "/dev/vfio/%s", strrchr(link, '/') + 1);
	CHECK((container = open("/dev/vfio/vfio", O_RDWR)) >= 0 && ioctl(container, VFIO_GET_API_VERSION) == VFIO_API_VERSION);
	CHECK(ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) == 1);
	CHECK((group = open(path, O_RDWR)) >= 0);
	CHECK(open(path, O_RDWR) == -1 && errno == EBUSY);
	struct vfio_group_status status = {.argsz = sizeof status};
	CHECK(ioctl(group, VFIO_GROUP_GET_STATUS, &status) == 0 && status.flags == VFIO_GROUP_FLAGS_VIABLE);
	CHECK(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, DEVICE) == -1 && errno == EINVAL); /* no container yet */
	CHECK(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) == 0 && ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0);
	CHECK(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "0000:00:1f.0") == -1 && errno == ENODEV);
	CHECK((device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, DEVICE)) >= 0);
}
static void open_by_node(void)
{
	char path[PATH_MAX];
	snprintf(path, sizeof path, "/dev/vfio/devices/%s", entry_of(FOLDER "/vfio-dev", "vfio"));
	CHECK((device = open(path, O_RDWR)) >= 0 && (container = open("/dev/iommu", O_RDWR)) >= 0);
	struct vfio_device_info info = {.argsz = sizeof info};
	CHECK(ioctl(device, VFIO_DEVICE_GET_INFO, &info) == -1 && errno == EINVAL); /* not bound yet */
	struct bind bind = {sizeof bind, 0, device, 0};
	CHECK(ioctl(device, DEVICE_BIND, &bind) == -1 && errno == EBADFD);
	bind.iommufd = container;
	CHECK(ioctl(device, DEVICE_BIND, &bind) == 0);
	struct ioas_alloc alloc = {sizeof alloc, 0, 0};
	CHECK(ioctl(container, IOAS_ALLOC, &alloc) == 0);
	ioas = alloc.id;
	struct attach attach = {sizeof attach, 0, ioas};
	CHECK(ioctl(device, DEVICE_ATTACH, &attach) == 0);
}

static uint32_t get(size_t offset)
{
	return *(volatile uint32_t *)(bar0 + offset);
}
static void put(size_t offset, uint32_t value)
{
	*(volatile uint32_t *)(bar0 + offset) = value;
}
/* The error of a command with its operand. */
static int command(uint32_t code, uint32_t operand)
{
	put(0xa0, code << 20 | operand);
	while (get(0xa8) >> 31)
		sched_yield();
	return get(0xa8) & 0xff;
}
static void *region(uint32_t index, off_t *offset, uint32_t flags)
{
	struct vfio_region_info info = {.argsz = sizeof info, .index = index};
	CHECK(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &info) == 0 && info.size && (info.flags & flags) == flags);
	*offset = (off_t)info.offset;
	if (!(flags & VFIO_REGION_INFO_FLAG_MMAP))
		return NULL;
	void *at = mmap(NULL, info.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)info.offset);
	CHECK(at != MAP_FAILED);
	/* It is no memory: nothing of it can be pinned by /dev/iommu. */
	CHECK(!cdev || (map(at, 0x70000000, 4096) == -1 && errno != 0));
	return at;
}
/* One dedicated queue with everything, one engine. */
static void set_up(void)
{
	enum { reset = 5, enable = 1, enable_queue = 6 };
	uint16_t word = 0x6; /* memory and bus master */
	CHECK(pwrite(device, &word, sizeof word, config + 4) == sizeof word);
	CHECK(command(reset, 0) == 0);
	size_t groups = (get(0x60) & 0xffff) * 0x100, queues = (get(0x60) >> 16) * 0x100;
	put(queues, 16);
	put(queues + 4, 0);
	put(queues + 8, 1 | 1 << 4);
	put(queues + 12, 21 | 5 << 5);
	put(groups, 1);
	put(groups + 32, 1);
	CHECK(command(enable, 0) == 0 && command(enable_queue, 0) == 0 && (get(0x90) & 3) == 1);
}
static int interrupt_by(int fd)
{
	struct {
		struct vfio_irq_set set;
		int32_t fd;
	} set = {{sizeof set, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_MSIX_IRQ_INDEX, VECTOR, 1}, fd};
	return ioctl(device, VFIO_DEVICE_SET_IRQS, &set);
}
static struct dsa_hw_desc copy_of(uint64_t to, uint64_t from, uint32_t length)
{
	return (struct dsa_hw_desc){.opcode = DSA_OPCODE_MEMMOVE,
				    .flags = IDXD_OP_FLAG_CRAV | IDXD_OP_FLAG_RCR,
				    .priv = 1,
				    .completion_addr = RECORDS,
				    .src_addr = from,
				    .dst_addr = to,
				    .xfer_size = length};
}
static int status_of(struct dsa_hw_desc *descriptor, volatile struct dsa_completion_record *record)
{
	record->status = 0;
	movdir64b(portal, descriptor);
	return done(record, 10) & 0x7f;
}

int main(int argc, char **argv)
{
	cdev = argc > 1 && !strcmp(argv[1], "cdev");
	int holds = argc > 2;
	off_t unused;

	/* As tools find it. */
	char link[PATH_MAX] = "";
	CHECK(number_in(FOLDER "/vendor") == 0x8086 && number_in(FOLDER "/device") == 0x0b25 && number_in(FOLDER "/class") >> 16 == 0x08);
	CHECK(readlink(FOLDER "/driver", link, sizeof link - 1) > 0 && !strcmp(strrchr(link, '/'), "/vfio-pci"));
	CHECK(!strcmp(entry_of(FOLDER "/iommu_group/devices", "0000:"), DEVICE) && access(FOLDER "/iommu_group/reserved_regions", R_OK) == 0);
	CHECK(access("/dev/dsa/wq0.0", F_OK) == -1);
	if (cdev)
		open_by_node();
	else
		open_by_group();

	/* Configuration space and registers by pread, the same by mappings. */
	struct vfio_device_info info = {.argsz = sizeof info};
	CHECK(ioctl(device, VFIO_DEVICE_GET_INFO, &info) == 0 && info.flags == (VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET));
	const uint32_t both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	uint32_t word;
	region(VFIO_PCI_CONFIG_REGION_INDEX, &config, both);
	CHECK(pread(device, &word, 4, config) == 4 && word == 0x0b258086);
	CHECK(pread(device, &word, 4, config + 4096) == -1);
	off_t registers;
	bar0 = region(VFIO_PCI_BAR0_REGION_INDEX, &registers, both | VFIO_REGION_INFO_FLAG_MMAP);
	portal = region(VFIO_PCI_BAR2_REGION_INDEX, &unused, both | VFIO_REGION_INFO_FLAG_MMAP);
	CHECK(pread(device, &word, 4, registers) == 4 && word == get(0) && (word >> 8 & 0xff) >= 1);
	CHECK(ioctl(device, VFIO_DEVICE_RESET) == 0 && get(0) == word);

	/* Memory for DMA, and what cannot be. */
	char *memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile struct dsa_completion_record *record = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *readable = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(memory != MAP_FAILED && record != MAP_FAILED && readable != MAP_FAILED);
	CHECK(map(memory, IOVA, MEMORY) == 0 && map((void *)record, RECORDS, 4096) == 0);
	CHECK(map(memory, IOVA + 4096, 4096) == -1 && errno == EEXIST);
	CHECK(map(readable, 0x30000000, 4096) == -1 && errno == EFAULT);
	CHECK(munmap(readable + 4096, 4096) == 0 && mprotect(readable, 4096, PROT_READ | PROT_WRITE) == 0);
	CHECK(map(readable, 0x30000000, 8192) == -1 && errno == EFAULT && map(readable, 0x30000000, 4096) == 0 && unmap(0x30000000, 4096) == 4096);

	/* Copies, and their interrupts. */
	set_up();
	int event = eventfd(0, EFD_NONBLOCK);
	uint64_t count = 0;
	CHECK(event >= 0 && interrupt_by(event) == 0);
	const size_t half = MEMORY / 2;
	for (uint32_t length = 1; length <= half; length = length * 5 + 3) {
		for (size_t i = 0; i < length; i++)
			memory[i + 5] = (char)(i * 7 + length);
		memset(memory + half, 0, length < half ? length + 1 : length);
		struct dsa_hw_desc copy = copy_of(IOVA + half, IOVA + 5, length);
		copy.flags |= IDXD_OP_FLAG_RCI;
		copy.int_handle = VECTOR;
		if (length + 5 > half)
			break;
		CHECK(status_of(&copy, record) == DSA_COMP_SUCCESS && !memcmp(memory + half, memory + 5, length) && memory[half + length] == 0);
		struct pollfd poller = {.fd = event, .events = POLLIN};
		CHECK(poll(&poller, 1, 5000) == 1 && read(event, &count, sizeof count) == sizeof count && count == 1);
	}
	struct dsa_hw_desc quiet = copy_of(IOVA + half, IOVA, 64);
	CHECK(status_of(&quiet, record) == DSA_COMP_SUCCESS && read(event, &count, sizeof count) == -1 && errno == EAGAIN);
	/* Addresses of the process mean nothing to the device. */
	struct dsa_hw_desc wrong = copy_of(IOVA, (uintptr_t)memory, 64);
	CHECK(status_of(&wrong, record) != DSA_COMP_SUCCESS);
	wrong = copy_of(0x50000000, IOVA, 64);
	CHECK(status_of(&wrong, record) != DSA_COMP_SUCCESS);

	if (holds) {
		CHECK(write(STDOUT_FILENO, "running\n", 8) == 8);
		for (;;) {
			struct dsa_hw_desc copy = copy_of(IOVA + half, IOVA, half);
			CHECK(status_of(&copy, record) == DSA_COMP_SUCCESS);
		}
	}

	/* The mapping goes while a copy runs: it ends somehow, and nothing is written afterwards. */
	for (int i = 0; i < 8; i++) {
		memset(memory, i + 1, half);
		memset(memory + half, 0, half);
		struct dsa_hw_desc copy = copy_of(IOVA + half, IOVA, half);
		record->status = 0;
		movdir64b(portal, &copy);
		CHECK(unmap(IOVA, MEMORY) == MEMORY);
		char *seen = malloc(half);
		memcpy(seen, memory + half, half);
		CHECK(done(record, 10));
		CHECK(!memcmp(seen, memory + half, half));
		free(seen);
		CHECK(map(memory, IOVA, MEMORY) == 0);
		if ((get(0x90) & 3) != 1)
			set_up();
	}

	/* A page that the process unmaps stays mapped for the device by its address alone: gone, it is a fault; another page there is reached. */
	CHECK(munmap(memory + half, 4096) == 0);
	struct dsa_hw_desc gone = copy_of(IOVA + half, IOVA, 64);
	CHECK(status_of(&gone, record) != DSA_COMP_SUCCESS);
	CHECK(mmap(memory + half, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == memory + half);
	memory[half] = 0;
	CHECK(status_of(&gone, record) == DSA_COMP_SUCCESS && !memcmp(memory + half, memory, 64));

	/* The device has the rights that it was given. */
	CHECK(mprotect(memory + half, 4096, PROT_READ) == 0);
	memory[0] = 77;
	CHECK(status_of(&gone, record) == DSA_COMP_SUCCESS && memory[half] == 77);
	CHECK(map(memory, 0x30000000, half) == 0 && map(memory + half, 0x40000000, 4096) == -1 && errno == EFAULT);
	CHECK(unmap(0x30000000, half) == (int64_t)half);

	/* A reset takes the queue; interrupts that were set up stay. */
	CHECK(ioctl(device, VFIO_DEVICE_RESET) == 0 && (get(0x90) & 3) == 0);
	set_up();
	quiet.flags |= IDXD_OP_FLAG_RCI;
	quiet.int_handle = VECTOR;
	CHECK(status_of(&quiet, record) == DSA_COMP_SUCCESS);
	struct pollfd poller = {.fd = event, .events = POLLIN};
	CHECK(poll(&poller, 1, 5000) == 1);
	CHECK(unmap(IOVA, MEMORY) == MEMORY && unmap(RECORDS, 4096) == 4096);
	return 0;
}
