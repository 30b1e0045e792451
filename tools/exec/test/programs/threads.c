/* Threads share the portals of their process, and each its own instructions: MOVDIR64B and ENQCMD of eight threads. */
#include "queue.h"

static void *portals[2];
static void *thread(void *shared)
{
	long failed = 0;
	for (int i = 0; i < 200; i++)
		failed += copies(portals[shared != NULL], shared != NULL) != 1;
	return (void *)failed;
}

int main(void)
{
	portals[0] = portal_at(DEDICATED);
	portals[1] = portal_at(SHARED);
	pthread_t all[8];
	for (long i = 0; i < 8; i++)
		CHECK(pthread_create(&all[i], NULL, thread, i & 1 ? portals[1] : NULL) == 0);
	for (int i = 0; i < 8; i++) {
		void *failed;
		CHECK(pthread_join(all[i], &failed) == 0 && failed == NULL);
	}
	return 0;
}
