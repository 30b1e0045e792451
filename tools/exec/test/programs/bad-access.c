/* Wrong use of a portal and of the instructions: the signal, or the nothing, of the real processor and device. */
#include "queue.h"
#include <immintrin.h>
#include <setjmp.h>

static void *portal;
static sigjmp_buf back;
static volatile int number_seen, code_seen;
static void *volatile address_seen;
static void handler(int number, siginfo_t *info, void *context)
{
	(void)context;
	number_seen = number;
	code_seen = info->si_code;
	address_seen = info->si_addr;
	siglongjmp(back, 1);
}
#define SIGNAL_OF(...)                                                                                                                         \
	({                                                                                                                                     \
		number_seen = code_seen = 0, address_seen = NULL;                                                                              \
		if (!sigsetjmp(back, 1)) {                                                                                                     \
			__VA_ARGS__;                                                                                                           \
		}                                                                                                                              \
		number_seen;                                                                                                                   \
	})

int main(void)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
	struct dsa_hw_desc nothing __attribute__((aligned(64))) = {0};
	CHECK(sigaction(SIGSEGV, &action, NULL) == 0 && sigaction(SIGBUS, &action, NULL) == 0 && sigaction(SIGILL, &action, NULL) == 0);
	portal = portal_at(DEDICATED);
	void *shared = portal_at(SHARED);

	/* Not executable. */
	CHECK(SIGNAL_OF(((void (*)(void))portal)()) == SIGSEGV && code_seen == SEGV_ACCERR && address_seen == portal);
	CHECK(SIGNAL_OF(((void (*)(void))((char *)portal + 65))()) == SIGSEGV && address_seen == (char *)portal + 65);

	/* Stores of other sizes go to the device, which does nothing with them. */
	volatile uint8_t *bytes = portal;
	bytes[0] = 1;
	bytes[3] += 1;
	*(volatile uint16_t *)(bytes + 2) = 2;
	*(volatile uint32_t *)(bytes + 8) = 3;
	*(volatile uint64_t *)(bytes + 64) = 4;
	*(volatile uint32_t *)(bytes + 5) = 5;
	*(volatile uint64_t *)(bytes + 4088) = ~0ull;
	_mm_storeu_si128((__m128i *)(bytes + 16), _mm_set1_epi8(7));
	_mm_stream_si128((__m128i *)(bytes + 32), _mm_set1_epi8(7));
	_mm_store_ps((float *)(bytes + 48), _mm_set1_ps(1));
	__asm__ volatile("movnti %0, (%1)" : : "r"(5), "r"(portal) : "memory");
	__asm__ volatile("rep stosb" : : "D"(portal), "a"(1), "c"(64L) : "memory");
	__asm__ volatile("rep movsq" : : "D"(portal), "S"(&nothing), "c"(8L) : "memory");
	if (__builtin_cpu_supports("avx2"))
		__asm__ volatile("vpxor %%ymm0, %%ymm0, %%ymm0\n\tvmovdqu %%ymm0, (%0)\n\tvzeroupper" : : "r"(portal) : "memory", "xmm0");
	if (__builtin_cpu_supports("avx512f"))
		__asm__ volatile("vpxorq %%zmm0, %%zmm0, %%zmm0\n\tvmovdqu64 %%zmm0, (%0)\n\tvmovdqu64 %%zmm0, 64(%0)\n\tvzeroupper" : : "r"(portal) : "memory", "xmm0");
	memcpy(portal, &nothing, 64);
	memset(portal, 0, 4096);
	/* Loads find all ones, as of a device's page that answers nothing. */
	CHECK(bytes[1] == 0xff && *(volatile uint16_t *)bytes == 0xffff && *(volatile uint32_t *)(bytes + 4) == ~0u && *(volatile uint64_t *)(bytes + 8) == ~0ull);
	CHECK(*(volatile int8_t *)bytes == -1 && *(volatile int16_t *)bytes == -1 && *(volatile int32_t *)bytes == -1);
	CHECK((long)*(volatile int32_t *)bytes == -1L && (long)*(volatile int8_t *)bytes == -1L);
	CHECK((*(volatile uint8_t *)bytes & 0x80) && *(volatile uint64_t *)bytes > 5 && *(volatile uint32_t *)(bytes + 12) != 7);
	char text[16];
	_mm_storeu_si128((__m128i *)text, _mm_loadu_si128((__m128i *)(bytes + 16)));
	CHECK((unsigned char)text[0] == 0xff && (unsigned char)text[15] == 0xff);
	CHECK(copies(portal, 0) == 1 && copies(shared, 1) == 1);

	/* The instructions' own rules: the destination is aligned to 64 bytes (#GP), the source is there (#PF). */
	CHECK(SIGNAL_OF(movdir64b((char *)portal + 8, &nothing)) == SIGSEGV);
	CHECK(SIGNAL_OF(enqcmd((char *)shared + 8, &nothing)) == SIGSEGV);
	CHECK(SIGNAL_OF(movdir64b(portal, (void *)0x1000)) == SIGSEGV && address_seen == (void *)0x1000);
	CHECK(SIGNAL_OF(enqcmd(shared, (void *)0x1000)) == SIGSEGV && address_seen == (void *)0x1000);
	char *two = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(munmap(two + 4096, 4096) == 0);
	CHECK(SIGNAL_OF(enqcmd(shared, two + 4096 - 32)) == SIGSEGV && address_seen == two + 4096);
	CHECK(SIGNAL_OF(movdir64b((void *)0x1000, &nothing)) == SIGSEGV && address_seen == (void *)0x1000);
	CHECK(SIGNAL_OF(movdir64b((void *)0x8000000000000000, &nothing)) == SIGSEGV);
	/* MOVDIR64B to plain memory is a copy; a portal of the other kind answers as it does. */
	struct dsa_hw_desc copy __attribute__((aligned(64))), from;
	memset(&from, 0x5a, sizeof from);
	movdir64b(&copy, &from);
	CHECK(!memcmp(&copy, &from, sizeof copy));
	CHECK(enqcmd(portal, &nothing) == 1); /* no enqueue target */
	movdir64b(shared, &nothing);	      /* dropped */
	CHECK(copies(portal, 0) == 1 && copies(shared, 1) == 1);

	/* Mappings that the driver refuses, by its errno. */
	int fd = open(SHARED, O_RDWR);
	CHECK(fd >= 0);
	CHECK(mmap(NULL, 8192, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EINVAL);
	CHECK(mmap(NULL, 0, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EINVAL);
	/* A mapping that was taken away. */
	CHECK(munmap(portal, 4096) == 0);
	CHECK(SIGNAL_OF(movdir64b(portal, &nothing)) == SIGSEGV && address_seen == portal && code_seen == SEGV_MAPERR);
	CHECK(SIGNAL_OF(*bytes = 1) == SIGSEGV && address_seen == portal && code_seen == SEGV_MAPERR);
	return 0;
}
