/*
 * Traps: instructions that the processor lacks, and accesses to device pages. Submissions are carried out here, through the ring; of all else
 * the server is told where the registers are. What is not ours goes to the program's own handlers, and masks keep the signals free: one of the
 * processor's that is blocked would kill. Intel SDM 2: MOVDIR64B, ENQCMD. SPDX-License-Identifier: MIT
 */
#include "shim.h"
#include <asm/prctl.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <ucontext.h>

static struct sigaction chained[3];
static const int trapped[3] = {SIGILL, SIGSEGV, SIGBUS};

static int index_of(int number) { return number == SIGILL ? 0 : number == SIGSEGV ? 1 : number == SIGBUS ? 2 : -1; }

EXPORT int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
	int i = ready ? index_of(number) : -1;
	struct sigaction copy = action ? *action : (struct sigaction){0}, before = chained[i < 0 ? 0 : i];
	if (i < 0 && ready)
		without(&copy.sa_mask);
	if (i < 0)
		return REAL(sigaction)(number, action ? &copy : NULL, old);
	if (action)
		chained[i] = copy;
	if (old)
		*old = before;
	return 0;
}
static sighandler_t set(int number, sighandler_t handler, int flags)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = flags}, old;
	return sigaction(number, &action, &old) < 0 ? SIG_ERR : old.sa_handler;
}
EXPORT sighandler_t signal(int number, sighandler_t handler) { return index_of(number) < 0 ? REAL(signal)(number, handler) : set(number, handler, SA_RESTART); }
EXPORT sighandler_t __sysv_signal(int number, sighandler_t handler) { return set(number, handler, (int)SA_RESETHAND | SA_NODEFER); }
EXPORT int sigprocmask(int how, const sigset_t *set, sigset_t *old) { return REAL(sigprocmask)(how, how == SIG_UNBLOCK ? set : FREE(set), old); }
EXPORT int pthread_sigmask(int how, const sigset_t *set, sigset_t *old) { return REAL(pthread_sigmask)(how, how == SIG_UNBLOCK ? set : FREE(set), old); }
EXPORT int pthread_attr_setsigmask_np(pthread_attr_t *a, const sigset_t *set) { return REAL(pthread_attr_setsigmask_np)(a, FREE(set)); }
EXPORT int sigsuspend(const sigset_t *set) { return REAL(sigsuspend)(FREE(set)); }
EXPORT int pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *t, const sigset_t *set) { return REAL(pselect)(n, r, w, e, t, FREE(set)); }
EXPORT int epoll_pwait(int fd, struct epoll_event *out, int n, int ms, const sigset_t *set) { return REAL(epoll_pwait)(fd, out, n, ms, FREE(set)); }

/* What would have happened without us. A signal that an instruction will bring again is left to that. */
static void chain(int number, siginfo_t *info, ucontext_t *context, int again)
{
	struct sigaction *action = &chained[index_of(number)], taken = *action, plain = {.sa_handler = SIG_DFL};
	sigset_t mask = context->uc_sigmask;
	if (taken.sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	if (taken.sa_handler == SIG_DFL || taken.sa_handler == SIG_IGN) {
		REAL(sigaction)(number, &plain, NULL);
		if (!again)
			SYS(tgkill, SYS(getpid, 0), SYS(gettid, 0), number);
		return;
	}
	if (taken.sa_flags & (int)SA_RESETHAND)
		action->sa_handler = SIG_DFL;
	/* The program's handler runs with the mask that it asked for; what returns from here goes back to the context's own. */
	sigorset(&mask, &mask, &taken.sa_mask);
	SYS(rt_sigprocmask, SIG_SETMASK, without(&mask), 0, 8);
	taken.sa_flags & SA_SIGINFO ? taken.sa_sigaction(number, info, context) : taken.sa_handler(number);
}
static int deliver(int number, int code, uintptr_t address, ucontext_t *context)
{
	siginfo_t info = {.si_signo = number, .si_code = code};
	info.si_addr = (void *)address;
	return chain(number, &info, context, 0), -1;
}

static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
			      REG_R8,  REG_R9,	REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
enum { ZERO = 0x040, FLAGS = 0x8d5 /* CF PF AF ZF SF OF */ };

/* The address of a memory operand; `at` is its ModRM, and then what follows it. Intel SDM 2, "Instruction Format". */
static uintptr_t operand(const uint8_t **at, const greg_t *g, int rex, int segment, int address32)
{
	uint8_t modrm = *(*at)++, sib = 0x20 /* no index */;
	int mod = modrm >> 6, base = modrm & 7;
	if (base == 4) {
		sib = *(*at)++;
		base = sib & 7;
	}
	int index = (sib >> 3 & 7) | (rex & 2 ? 8 : 0), wide = mod == 2 || (mod == 0 && base == 5);
	int32_t displacement = mod == 1 ? *(const int8_t *)*at : 0;
	if (wide)
		memcpy(&displacement, *at, 4);
	*at += wide ? 4 : mod == 1;
	uint64_t address = (uint64_t)displacement, start = 0;
	if (mod || base != 5)
		address += (uint64_t)g[order[base | (rex & 1 ? 8 : 0)]];
	else if ((modrm & 7) == 5)
		address += (uintptr_t)*at;
	if (index != 4)
		address += (uint64_t)g[order[index]] << (sib >> 6);
	if (segment)
		SYS(arch_prctl, segment == 0x64 ? ARCH_GET_FS : ARCH_GET_GS, &start);
	return start + (address32 ? (uint32_t)address : address);
}

/* Whose operands are being copied: where a page is missing, the fault is that instruction's. */
static __thread ucontext_t *volatile copying __attribute__((tls_model("initial-exec")));

/* An instruction carried out by the server. 1: done; 0: not ours; -1: a signal was delivered in its place. */
static int emulated(int number, uintptr_t address, ucontext_t *context)
{
	int page = number == SIGSEGV && region_of(address, 1) != NULL;
	if (!space->connected || (number != SIGILL && !page))
		return 0;
	struct siov_reply reply = {0};
	long result = request((struct siov_request){.op = SIOV_TRAP, .args = {(uintptr_t)context, page ? address : 0}}, NULL, &reply);
	pieces(reply.args[0], reply.args[1], reply.args[2]);
	return result == SIOV_DONE ? 1 : result == SIOV_NOT_OURS ? 0 : deliver(SIGBUS, BUS_ADRERR, address, context);
}

/* 66, F2, F3 0F 38 F8: 64 bytes to the address in a register. An answer as above. */
static int submission(int number, ucontext_t *context)
{
	greg_t *g = context->uc_mcontext.gregs;
	const uint8_t *at = (const uint8_t *)g[REG_RIP];
	int operand16 = 0, address32 = 0, repeat = 0, segment = 0, rex = 0;
	uint64_t data[8];
	for (; *at && strchr("\x66\x67\xf2\xf3\x64\x65\x2e\x36\x3e\x26", *at); at++) {
		operand16 |= *at == 0x66;
		address32 |= *at == 0x67;
		repeat = *at >= 0xf2 ? *at : repeat;
		segment = *at == 0x64 || *at == 0x65 ? *at : segment;
	}
	if ((*at & 0xf0) == 0x40)
		rex = *at++;
	if (at[0] != 0x0f || at[1] != 0x38 || at[2] != 0xf8 || at[3] >> 6 == 3 || !(repeat || operand16))
		return 0;
	at += 3;
	uintptr_t to = (uintptr_t)g[order[(*at >> 3 & 7) | (rex & 4 ? 8 : 0)]], from = operand(&at, g, rex, segment, address32);
	if (address32)
		to = (uint32_t)to;
	if (to & 63 || repeat == 0xf3 || to + (1ull << 47) >= 1ull << 48)
		return deliver(SIGSEGV, SI_KERNEL, 0, context); /* #GP; ENQCMDS is the kernel's */
	struct siov_region *region = region_of(to, 64);
	if (!region && !repeat && number != SIGILL)
		return 0; /* the processor has the instruction, and found a page missing */
	copying = context;
	for (int i = 0; i < 8; i++)
		data[i] = ((const volatile uint64_t *)from)[i];
	for (int i = 0; !region && !repeat && i < 8; i++)
		((volatile uint64_t *)to)[i] = data[i];
	copying = NULL;
	int result = SIOV_DONE;
	/* The driver may put the page back: then it is there. */
	int answer = region && !(region->live & 1) ? emulated(SIGSEGV, to, context) : 0;
	if (answer || (region && !(region->live & 1)))
		return answer;
	if (region || repeat)
		result = !region || !(region->live & 2) ? SIOV_PROTECTION : post(repeat ? SIOV_ENQCMD : SIOV_MOVDIR64B, to, data);
	if (result == SIOV_PROTECTION)
		return deliver(SIGSEGV, region ? SEGV_ACCERR : SEGV_MAPERR, to, context);
	if (result == SIOV_BUS_ERROR)
		return deliver(SIGBUS, BUS_ADRERR, to, context);
	if (repeat)
		g[REG_EFL] = (g[REG_EFL] & ~FLAGS) | (result == SIOV_RETRY ? ZERO : 0);
	g[REG_RIP] = (greg_t)at;
	return 1;
}

static void trap(int number, siginfo_t *info, void *context)
{
	greg_t rip = ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
	int saved = errno, done = 0;
	struct timespec from, to;
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (number == SIGBUS && info->si_code == SI_QUEUE && info->si_value.sival_int == SIOV_REVOKED && info->si_pid == space->server) {
		for (struct siov_region *r = space->ring->regions; r < space->ring->regions + SIOV_REGIONS; r++)
			if (r->length && !(r->live & 1))
				SYS(mprotect, r->start, r->length, PROT_NONE);
		done = -1;
	} else if (copying && info->si_code > 0) {
		/* What returns from the program's handler tries the copy again. */
		context = copying;
		copying = NULL;
	} else if (info->si_code > 0 && (number == SIGILL || (greg_t)info->si_addr != rip)) {
		/* Where nothing can be fetched, there is no instruction to look at. */
		if (!(done = submission(number, context)))
			done = emulated(number, (uintptr_t)info->si_addr, context);
	}
	if (done == 0)
		chain(number, info, context, info->si_code > 0);
	else if (done > 0 && space->ring) {
		clock_gettime(CLOCK_MONOTONIC, &to);
		__atomic_fetch_add(&space->ring->traps, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&space->ring->ns, (uint64_t)((to.tv_sec - from.tv_sec) * 1000000000L + to.tv_nsec - from.tv_nsec), __ATOMIC_RELAXED);
	}
	errno = saved;
}

void start_traps(void)
{
	struct sigaction action = {.sa_sigaction = trap, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK | SA_RESTART};
	uint64_t three = 1ull << (SIGILL - 1) | 1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1);
	sigfillset(&action.sa_mask);
	without(&action.sa_mask);
	for (int i = 0; i < 3; i++)
		REAL(sigaction)(trapped[i], &action, &chained[i]);
	/* Whoever started this program may have blocked them. */
	SYS(rt_sigprocmask, SIG_UNBLOCK, &three, 0, 8);
}
