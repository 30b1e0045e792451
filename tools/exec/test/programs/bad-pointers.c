/* Descriptors whose addresses are wrong: status and address in the record, as the device gives them; the queue goes on. */
#include "queue.h"
#include <sys/resource.h>

static void *portal;
static struct dsa_completion_record record __attribute__((aligned(64)));
static int status_of(struct dsa_hw_desc descriptor)
{
	record = (struct dsa_completion_record){0};
	submit(portal, 1, &descriptor);
	return done(&record, 10);
}

int main(void)
{
	char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *readonly = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(pages, 1, 3 * 4096);
	CHECK(munmap(pages + 8192, 4096) == 0);
	portal = portal_at(SHARED);
	CHECK(copies(portal, 1) == 1);

	/* A source that is nowhere; a destination; half of each. Block on fault asks for the page, and is refused. */
	CHECK(status_of(memmove_of(pages, (void *)0x1000, 64, &record)) == DSA_COMP_PAGE_FAULT_IR);
	CHECK(record.fault_addr == 0x1000 && record.bytes_completed == 0);
	CHECK(status_of(memmove_of((void *)0x1000, pages, 64, &record)) == (DSA_COMP_PAGE_FAULT_IR | DSA_COMP_STATUS_WRITE));
	CHECK(record.fault_addr == 0x1000 && record.bytes_completed == 0);
	CHECK(status_of(memmove_of(pages, pages + 4096, 8192, &record)) == DSA_COMP_OVERLAP_BUFFERS || record.bytes_completed == 4096);
	CHECK(status_of(memmove_of(readonly, pages, 64, &record)) == (DSA_COMP_PAGE_FAULT_IR | DSA_COMP_STATUS_WRITE));
	CHECK(status_of(memmove_of(pages, readonly, 64, &record)) == DSA_COMP_SUCCESS && pages[0] == 0);
	/* Not canonical, and of the kernel's half. */
	CHECK(status_of(memmove_of(pages, (void *)0x8000000000000000, 64, &record)) != DSA_COMP_SUCCESS);
	CHECK(status_of(memmove_of((void *)0xffffffff81000000, pages, 64, &record)) != DSA_COMP_SUCCESS);
	CHECK(status_of(memmove_of(pages, (void *)0xfffffffffffffff0, 64, &record)) != DSA_COMP_SUCCESS);
	/* Without block on fault, what is not there now. */
	struct dsa_hw_desc copy = memmove_of(pages, pages + 4096, 4096, &record);
	copy.flags &= ~(uint32_t)IDXD_OP_FLAG_BOF;
	CHECK(madvise(pages + 4096, 4096, MADV_DONTNEED) == 0);
	CHECK(status_of(copy) == DSA_COMP_PAGE_FAULT_NOBOF && record.fault_addr == (uintptr_t)pages + 4096);
	copy.flags |= IDXD_OP_FLAG_BOF;
	CHECK(status_of(copy) == DSA_COMP_SUCCESS);
	/* The portal's own page, as an operand. */
	CHECK(status_of(memmove_of(pages, portal, 64, &record)) != 0);

	/* A record that cannot be written: nobody hears of it, and the queue goes on. */
	copy = memmove_of(pages, pages + 4096, 64, &record);
	copy.completion_addr = 0x2000;
	submit(portal, 1, &copy);
	copy.completion_addr = (uintptr_t)readonly;
	submit(portal, 1, &copy);
	copy.completion_addr = (uintptr_t)&record + 4;
	submit(portal, 1, &copy);
	copy.completion_addr = ~31ull;
	submit(portal, 1, &copy);
	CHECK(copies(portal, 1) == 1);

	/* The same by write(2). */
	int fd = open(SHARED, O_RDWR);
	CHECK(fd >= 0);
	copy = memmove_of(pages, pages + 4096, 64, &record);
	struct dsa_hw_desc pair[2] = {copy, copy};
	CHECK(write(fd, (void *)0x1000, 64) == -1 && errno == EFAULT);
	CHECK(write(fd, (void *)0xffffffff81000000, 64) == -1 && errno == EFAULT);
	memcpy(pages + 8192 - 64, &copy, 64);
	CHECK(write(fd, pages + 8192 - 64, 128) == 64); /* the second is nowhere */
	CHECK(done(&record, 10) == DSA_COMP_SUCCESS);
	record.status = 0;
	CHECK(write(fd, &copy, 63) == 0);
	CHECK(write(fd, pair, 100) == 64 && done(&record, 10) == DSA_COMP_SUCCESS);
	copy.completion_addr += 4;
	CHECK(write(fd, &copy, 64) == -1 && errno == EINVAL);
	CHECK(copies(portal, 1) == 1);
	return 0;
}
