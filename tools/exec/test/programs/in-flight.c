/* Memory that goes, and processes that end, while the device is at work. */
#include "queue.h"

#define LENGTH (1 << 20)

int main(void)
{
	void *portal = portal_at(SHARED);
	int how, faults = 0, whole = 0;
	for (int i = 0; i < 40; i++) {
		struct dsa_completion_record record __attribute__((aligned(64)));
		char *from = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		char *to = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		memset(from, i, LENGTH);
		struct dsa_hw_desc copy = memmove_of(to, from, LENGTH, &record);
		submit(portal, 1, &copy);
		if (i % 4 == 1)
			sched_yield();
		CHECK(i % 2 ? munmap(from, LENGTH) == 0 : munmap(to, LENGTH) == 0);
		int status = done(&record, 10);
		if (status == DSA_COMP_SUCCESS) {
			whole++;
			CHECK(!(i % 2) || to[LENGTH - 1] == i);
		} else {
			/* The page was asked for, and refused: what is gone, from where on. */
			faults++;
			CHECK(status == (i % 2 ? DSA_COMP_PAGE_FAULT_IR : DSA_COMP_PAGE_FAULT_IR | DSA_COMP_STATUS_WRITE));
			CHECK(record.bytes_completed < LENGTH && record.fault_addr - (uintptr_t)(i % 2 ? from : to) == record.bytes_completed);
		}
		munmap(from, LENGTH);
		munmap(to, LENGTH);
	}
	printf("%d copies whole, %d stopped by a fault\n", whole, faults);
	/* The portal goes with descriptors under way. */
	for (int i = 0; i < 20; i++) {
		static char a[65536], b[65536];
		static struct dsa_completion_record records[8] __attribute__((aligned(64)));
		void *short_lived = portal_at(SHARED);
		for (int n = 0; n < 8; n++) {
			struct dsa_hw_desc copy = memmove_of(b, a, sizeof a, &records[n]);
			submit(short_lived, 1, &copy);
		}
		CHECK(munmap(short_lived, 4096) == 0);
		/* close drains: all are done when it returns. */
		for (int n = 0; n < 8; n++)
			CHECK(records[n].status == DSA_COMP_SUCCESS);
	}
	/* Ends in the middle: by exit, by a signal, by exec. */
	for (int i = 0; i < 9; i++) {
		CHILD(how)
		{
			static struct dsa_completion_record records[8] __attribute__((aligned(64)));
			char *a = malloc(LENGTH), *b = malloc(LENGTH);
			void *own = portal_at(SHARED);
			memset(a, 1, LENGTH);
			for (int n = 0; n < 8; n++) {
				struct dsa_hw_desc copy = memmove_of(b, a, LENGTH, &records[n]);
				submit(own, 1, &copy);
			}
			if (i % 3 == 1)
				kill(getpid(), SIGKILL);
			if (i % 3 == 2)
				execl("/bin/true", "true", NULL);
			_exit(3);
		}
		CHECK(how == (i % 3 == 0 ? 3 : i % 3 == 1 ? -SIGKILL : 0));
		CHECK(copies(portal, 1) == 1);
	}
	return 0;
}
