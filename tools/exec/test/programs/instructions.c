/* Every form of load and store that is emulated, on a portal and by the processor itself on a page of all ones: registers and flags are equal. */
#include "queue.h"

struct state {
	uint64_t rax, rcx, rdx, rdi, flags;
};
/* The form with these registers and flags, its address in rbx. */
#define FORM(name, text)                                                                                                                       \
	static __attribute__((noinline)) void name(void *page, struct state *s)                                                                \
	{                                                                                                                                      \
		__asm__ volatile("sub $512, %%rsp\n\tpush %[flags]\n\tpopfq\n\t" text "\n\tpushfq\n\tpop %[flags]\n\tadd $512, %%rsp"               \
				 : "+a"(s->rax), "+c"(s->rcx), "+d"(s->rdx), "+D"(s->rdi), [flags] "+r"(s->flags)                              \
				 : "b"(page)                                                                                                   \
				 : "rsi", "r8", "r9", "xmm0", "xmm1", "xmm2", "xmm9", "xmm10", "cc", "memory");                                \
	}
#define FORMS(X) \
	X(0, "movb (%%rbx), %%al") \
	X(1, "movb %%al, 16(%%rbx)") \
	X(2, "movb $0x5a, (%%rbx,%%rcx,2)") \
	X(3, "addb 8(%%rbx), %%dl") \
	X(4, "addb %%al, 24(%%rbx)") \
	X(5, "addb $0x7f, (%%rbx)") \
	X(6, "orb 8(%%rbx), %%dl") \
	X(7, "orb %%al, 24(%%rbx)") \
	X(8, "orb $0x7f, (%%rbx)") \
	X(9, "adcb 8(%%rbx), %%dl") \
	X(10, "adcb %%al, 24(%%rbx)") \
	X(11, "adcb $0x7f, (%%rbx)") \
	X(12, "sbbb 8(%%rbx), %%dl") \
	X(13, "sbbb %%al, 24(%%rbx)") \
	X(14, "sbbb $0x7f, (%%rbx)") \
	X(15, "andb 8(%%rbx), %%dl") \
	X(16, "andb %%al, 24(%%rbx)") \
	X(17, "andb $0x7f, (%%rbx)") \
	X(18, "subb 8(%%rbx), %%dl") \
	X(19, "subb %%al, 24(%%rbx)") \
	X(20, "subb $0x7f, (%%rbx)") \
	X(21, "xorb 8(%%rbx), %%dl") \
	X(22, "xorb %%al, 24(%%rbx)") \
	X(23, "xorb $0x7f, (%%rbx)") \
	X(24, "cmpb 8(%%rbx), %%dl") \
	X(25, "cmpb %%al, 24(%%rbx)") \
	X(26, "cmpb $0x7f, (%%rbx)") \
	X(27, "testb %%al, (%%rbx)") \
	X(28, "testb $0x11, 40(%%rbx)") \
	X(29, "incb (%%rbx)") \
	X(30, "decb (%%rbx)") \
	X(31, "movw (%%rbx), %%ax") \
	X(32, "movw %%ax, 16(%%rbx)") \
	X(33, "movw $0x5a, (%%rbx,%%rcx,2)") \
	X(34, "addw 8(%%rbx), %%dx") \
	X(35, "addw %%ax, 24(%%rbx)") \
	X(36, "addw $0x7f, (%%rbx)") \
	X(37, "orw 8(%%rbx), %%dx") \
	X(38, "orw %%ax, 24(%%rbx)") \
	X(39, "orw $0x7f, (%%rbx)") \
	X(40, "adcw 8(%%rbx), %%dx") \
	X(41, "adcw %%ax, 24(%%rbx)") \
	X(42, "adcw $0x7f, (%%rbx)") \
	X(43, "sbbw 8(%%rbx), %%dx") \
	X(44, "sbbw %%ax, 24(%%rbx)") \
	X(45, "sbbw $0x7f, (%%rbx)") \
	X(46, "andw 8(%%rbx), %%dx") \
	X(47, "andw %%ax, 24(%%rbx)") \
	X(48, "andw $0x7f, (%%rbx)") \
	X(49, "subw 8(%%rbx), %%dx") \
	X(50, "subw %%ax, 24(%%rbx)") \
	X(51, "subw $0x7f, (%%rbx)") \
	X(52, "xorw 8(%%rbx), %%dx") \
	X(53, "xorw %%ax, 24(%%rbx)") \
	X(54, "xorw $0x7f, (%%rbx)") \
	X(55, "cmpw 8(%%rbx), %%dx") \
	X(56, "cmpw %%ax, 24(%%rbx)") \
	X(57, "cmpw $0x7f, (%%rbx)") \
	X(58, "testw %%ax, (%%rbx)") \
	X(59, "testw $0x11, 40(%%rbx)") \
	X(60, "incw (%%rbx)") \
	X(61, "decw (%%rbx)") \
	X(62, "addw $0x1234, 4(%%rbx)") \
	X(63, "cmpw $0x1234, 4(%%rbx)") \
	X(64, "andw $0x1234, 4(%%rbx)") \
	X(65, "movzbw (%%rbx), %%ax") \
	X(66, "movsbw 1(%%rbx), %%ax") \
	X(67, "movl (%%rbx), %%eax") \
	X(68, "movl %%eax, 16(%%rbx)") \
	X(69, "movl $0x5a, (%%rbx,%%rcx,2)") \
	X(70, "addl 8(%%rbx), %%edx") \
	X(71, "addl %%eax, 24(%%rbx)") \
	X(72, "addl $0x7f, (%%rbx)") \
	X(73, "orl 8(%%rbx), %%edx") \
	X(74, "orl %%eax, 24(%%rbx)") \
	X(75, "orl $0x7f, (%%rbx)") \
	X(76, "adcl 8(%%rbx), %%edx") \
	X(77, "adcl %%eax, 24(%%rbx)") \
	X(78, "adcl $0x7f, (%%rbx)") \
	X(79, "sbbl 8(%%rbx), %%edx") \
	X(80, "sbbl %%eax, 24(%%rbx)") \
	X(81, "sbbl $0x7f, (%%rbx)") \
	X(82, "andl 8(%%rbx), %%edx") \
	X(83, "andl %%eax, 24(%%rbx)") \
	X(84, "andl $0x7f, (%%rbx)") \
	X(85, "subl 8(%%rbx), %%edx") \
	X(86, "subl %%eax, 24(%%rbx)") \
	X(87, "subl $0x7f, (%%rbx)") \
	X(88, "xorl 8(%%rbx), %%edx") \
	X(89, "xorl %%eax, 24(%%rbx)") \
	X(90, "xorl $0x7f, (%%rbx)") \
	X(91, "cmpl 8(%%rbx), %%edx") \
	X(92, "cmpl %%eax, 24(%%rbx)") \
	X(93, "cmpl $0x7f, (%%rbx)") \
	X(94, "testl %%eax, (%%rbx)") \
	X(95, "testl $0x11, 40(%%rbx)") \
	X(96, "incl (%%rbx)") \
	X(97, "decl (%%rbx)") \
	X(98, "addl $0x12345, 4(%%rbx)") \
	X(99, "cmpl $0x12345, 4(%%rbx)") \
	X(100, "andl $0x12345, 4(%%rbx)") \
	X(101, "movzbl (%%rbx), %%eax") \
	X(102, "movsbl 1(%%rbx), %%eax") \
	X(103, "movzwl 2(%%rbx), %%eax") \
	X(104, "movswl 6(%%rbx), %%eax") \
	X(105, "movq (%%rbx), %%rax") \
	X(106, "movq %%rax, 16(%%rbx)") \
	X(107, "movq $0x5a, (%%rbx,%%rcx,2)") \
	X(108, "addq 8(%%rbx), %%rdx") \
	X(109, "addq %%rax, 24(%%rbx)") \
	X(110, "addq $0x7f, (%%rbx)") \
	X(111, "orq 8(%%rbx), %%rdx") \
	X(112, "orq %%rax, 24(%%rbx)") \
	X(113, "orq $0x7f, (%%rbx)") \
	X(114, "adcq 8(%%rbx), %%rdx") \
	X(115, "adcq %%rax, 24(%%rbx)") \
	X(116, "adcq $0x7f, (%%rbx)") \
	X(117, "sbbq 8(%%rbx), %%rdx") \
	X(118, "sbbq %%rax, 24(%%rbx)") \
	X(119, "sbbq $0x7f, (%%rbx)") \
	X(120, "andq 8(%%rbx), %%rdx") \
	X(121, "andq %%rax, 24(%%rbx)") \
	X(122, "andq $0x7f, (%%rbx)") \
	X(123, "subq 8(%%rbx), %%rdx") \
	X(124, "subq %%rax, 24(%%rbx)") \
	X(125, "subq $0x7f, (%%rbx)") \
	X(126, "xorq 8(%%rbx), %%rdx") \
	X(127, "xorq %%rax, 24(%%rbx)") \
	X(128, "xorq $0x7f, (%%rbx)") \
	X(129, "cmpq 8(%%rbx), %%rdx") \
	X(130, "cmpq %%rax, 24(%%rbx)") \
	X(131, "cmpq $0x7f, (%%rbx)") \
	X(132, "testq %%rax, (%%rbx)") \
	X(133, "testq $0x11, 40(%%rbx)") \
	X(134, "incq (%%rbx)") \
	X(135, "decq (%%rbx)") \
	X(136, "addq $0x12345, 4(%%rbx)") \
	X(137, "cmpq $0x12345, 4(%%rbx)") \
	X(138, "andq $0x12345, 4(%%rbx)") \
	X(139, "movzbq (%%rbx), %%rax") \
	X(140, "movsbq 1(%%rbx), %%rax") \
	X(141, "movzwq 2(%%rbx), %%rax") \
	X(142, "movswq 6(%%rbx), %%rax") \
	X(143, "movslq 4(%%rbx), %%rax") \
	X(144, "movb (%%rbx), %%ah") \
	X(145, "movb %%ch, 3(%%rbx)") \
	X(146, "movb %%ah, (%%rbx)") \
	X(147, "cmpb %%dh, (%%rbx)") \
	X(148, "mov %%r9, 128(%%rbx)") \
	X(149, "movl (%%rbx,%%rcx,8), %%r8d") \
	X(150, "lea 8(%%rbx), %%rsi\n\tmovl -4(%%rsi,%%rcx,8), %%eax") \
	X(151, "movnti %%rax, 64(%%rbx)") \
	X(152, "movups %%xmm0, (%%rbx)") \
	X(153, "movaps %%xmm1, 16(%%rbx)") \
	X(154, "movntdq %%xmm1, 32(%%rbx)") \
	X(155, "movdqu %%xmm9, 8(%%rbx)") \
	X(156, "movss %%xmm0, 4(%%rbx)") \
	X(157, "movsd %%xmm0, 8(%%rbx)") \
	X(158, "movq %%xmm0, 8(%%rbx)") \
	X(159, "movdqu (%%rbx), %%xmm2\n\tmovq %%xmm2, %%rax") \
	X(160, "movups 64(%%rbx), %%xmm10\n\tmovq %%xmm10, %%rdx") \
	X(161, "lea 256(%%rbx), %%rdi\n\tstosq") \
	X(162, "lea 256(%%rbx), %%rdi\n\tand $63, %%ecx\n\trep stosb") \
	X(163, "lea 512(%%rbx), %%rdi\n\tmov $3000, %%ecx\n\trep stosb") \
	X(164, "lea 600(%%rbx), %%rdi\n\tmov $9, %%ecx\n\tstd\n\trep stosl\n\tcld") \
	X(165, "mov %%rbx, %%rsi\n\tlea -256(%%rsp), %%rdi\n\tmov $16, %%ecx\n\trep movsb\n\tmov -248(%%rsp), %%rax\n\tmov $0, %%edi")
#define NAMED(n, text) FORM(form_##n, text)
FORMS(NAMED)
#define ROW(n, text) {text, form_##n},
static const struct {
	const char *text;
	void (*run)(void *, struct state *);
} forms[] = {FORMS(ROW)};

static size_t now;
static void refused(int number)
{
	fprintf(stderr, "%s: signal %d\n", forms[now].text, number);
	_exit(1);
}

int main(void)
{
	signal(SIGSEGV, refused);
	static const uint64_t values[] = {0, 1, 0x7f, 0x80, 0xff, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, ~0ull, 0x123456789abcdef0};
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *portal = portal_at(DEDICATED);
	int failed = 0, runs = 0;
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
			now = i;
			struct state a = {values[v], v, values[(v * 5 + 3) % 12], v, 0x202 | (v & 1)}, b = a;
			memset(page, 0xff, 4096);
			forms[i].run(page, &a);
			forms[i].run(portal, &b);
			a.rdi -= a.rdi > 4096 ? (uintptr_t)page : 0;
			b.rdi -= b.rdi > 4096 ? (uintptr_t)portal : 0;
			if (strstr(forms[i].text, "and") || strstr(forms[i].text, "or") || strstr(forms[i].text, "test"))
				a.flags &= ~0x10ull, b.flags &= ~0x10ull; /* AF is undefined after logic */
			runs++;
			if (memcmp(&a, &b, sizeof a) && failed++ < 20)
				fprintf(stderr, "%s with %llx: rax %llx %llx rcx %llx %llx rdx %llx %llx rdi %llx %llx flags %llx %llx\n", forms[i].text, (long long)values[v],
					(long long)a.rax, (long long)b.rax, (long long)a.rcx, (long long)b.rcx, (long long)a.rdx, (long long)b.rdx, (long long)a.rdi,
					(long long)b.rdi, (long long)a.flags, (long long)b.flags);
		}
	printf("%d forms, %d runs, %d differ\n", (int)(sizeof forms / sizeof *forms), runs, failed);
	return failed != 0;
}
