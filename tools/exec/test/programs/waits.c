/* UMONITOR, UMWAIT and TPAUSE on a processor without them: a wait that ends at once. */
#include "queue.h"

int main(void)
{
	void *portal = portal_at(SHARED);
	for (int i = 0; i < 20; i++) {
		static char a[100000], b[100000];
		static struct dsa_completion_record record __attribute__((aligned(64)));
		struct dsa_hw_desc copy = memmove_of(b, a, sizeof a, &record);
		submit(portal, 1, &copy);
		int waits = 0;
		while (!*(volatile uint8_t *)&record.status) {
			uint64_t until = ~0ull;
			__asm__ volatile("umonitor %0" : : "r"(&record));
			if (!*(volatile uint8_t *)&record.status) {
				uint8_t carry;
				if (i & 1)
					__asm__ volatile("umwait %1\n\tsetc %0" : "=r"(carry) : "r"(0), "a"((uint32_t)until), "d"((uint32_t)(until >> 32)) : "cc");
				else
					__asm__ volatile("tpause %1\n\tsetc %0" : "=r"(carry) : "r"(0), "a"((uint32_t)until), "d"((uint32_t)(until >> 32)) : "cc");
				CHECK(carry == 0);
			}
			CHECK(++waits < 10000000);
		}
		CHECK(record.status == 1);
	}
	return 0;
}
